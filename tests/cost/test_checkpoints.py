"""Configurations of served models, against sizes and costs that were found without our code."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.cost import AttentionLayers, Cost, Price, UnsupportedArchitecture, read_config

FOLDER = Path(__file__).parent.parent / "data" / "models"
TRUTH = {row["model"]: row for row in csv.DictReader((FOLDER / "truth.csv").open(encoding="utf-8"))}
CONTEXT = 16_000

REFUSED = {"DeepSeek-V4-Pro": "deepseek_v4", "Kimi-K3": "kimi_k3", "Step-3.7-Flash": "step3p7"}

TABLE_WRONG = {
    # The same layers as Gemma-4-26B-A4B, of which 5 are full with 2 KV heads of 512, and an fp8 cache. The table has
    # 8 of 256 there and two bytes.
    "Gemma-4-26B-A4B-NVFP4": ("attention_flops_at_16000", "kv_and_state_bytes_at_16000"),
    # Its kv_cache_scheme has 8 bits; the table counts 16.
    "Kimi-K2.6-NVFP4": ("kv_and_state_bytes_at_16000",),
    # The same layers as MiniMax-M3, which the table has block-sparse; here it has them dense, and no dense MLPs.
    "MiniMax-M3-NVFP4": ("active_parameters", "parameters", "attention_flops_at_16000", "kv_and_state_bytes_at_16000"),
    # 1.43e9 is Ling-mini-2.0, all of whose layers are softmax attention; see the test below.
    "Ring-mini-linear-2.0": ("active_parameters",),
    # tie_word_embeddings is false, and the table's parameters count the embedding and the head.
    "Nemotron-3-Nano-30B-A3B": ("looked_up_embedding",),
    "Nemotron-3-Ultra": ("looked_up_embedding",),
    "Nemotron-Nano-9B-v2": ("looked_up_embedding",),
    # The per-layer embedding is looked up too; the table knows of an untied one only.
    "Gemma-3n-E4B": ("looked_up_embedding",),
}
"""Where truth.csv itself is wrong, by the configurations and by its own other rows."""


def config(model: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{model}.json").read_text(encoding="utf-8"))
    return content


def found(model: str) -> dict[str, float]:
    architecture = read_config(config(model), model)
    token = Price(architecture, 1.0).decode(CONTEXT - 1, 1) - Cost(2 * architecture.multiplied_parameters, 0)
    return {
        "parameters": architecture.parameters,
        "active_parameters": architecture.active_parameters,
        "looked_up_embedding": architecture.looked_up_embedding,
        "attention_flops_at_16000": token.compute_flops,
        "kv_and_state_bytes_at_16000": token.memory_bytes,
    }


@pytest.mark.parametrize("model", sorted(set(TRUTH) - set(REFUSED)))
def test_a_served_model_has_its_parameters_layers_and_bytes(model: str) -> None:
    for key, value in found(model).items():
        if TRUTH[model][key] and key not in TABLE_WRONG.get(model, ()):
            tolerance = 0.02 if "parameters" in key else 0.01
            assert value == pytest.approx(float(TRUTH[model][key]), rel=tolerance), key


@pytest.mark.parametrize("model", sorted(REFUSED))
def test_a_model_that_is_not_known_is_refused_by_its_type(model: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=REFUSED[model]):
        read_config(config(model), model)


@pytest.mark.parametrize(
    ("quantized", "plain", "kv_share"),
    [("Gemma-4-26B-A4B-NVFP4", "Gemma-4-26B-A4B", 0.5), ("MiniMax-M3-NVFP4", "MiniMax-M3", 1.0)],
)
def test_a_quantized_checkpoint_costs_what_its_model_does(quantized: str, plain: str, kv_share: float) -> None:
    ours, table = found(quantized), TRUTH[plain]
    for key, share in (
        ("active_parameters", 1.0),
        ("attention_flops_at_16000", 1.0),
        ("kv_and_state_bytes_at_16000", kv_share),
    ):
        assert ours[key] == pytest.approx(share * float(table[key]), rel=0.01), key


def test_ring_mini_activates_957_million_parameters_beside_its_embedding_and_head() -> None:
    """By its tensors: 16 linear layers (q, k, v, gate, output), 4 full ones, 19 mixtures of 8 routed experts, a shared
    one and a router, one dense MLP; norms are below a thousandth."""
    linear, full = 5 * 2048 * 2048, 2 * 2048 * 2048 + 2 * 2048 * 512
    mixture, dense = 9 * 3 * 2048 * 512 + 2048 * 256, 3 * 2048 * 5120
    body = 16 * linear + 4 * full + 19 * mixture + dense
    assert body == pytest.approx(957e6, rel=1e-3)
    assert found("Ring-mini-linear-2.0")["active_parameters"] == pytest.approx(body + 2 * 157184 * 2048, rel=1e-3)


def test_the_per_layer_embedding_of_gemma_3n_is_looked_up_in_every_layer() -> None:
    assert found("Gemma-3n-E4B")["looked_up_embedding"] == 35 * 256 * 262144


def test_nemotrons_parameters_hold_an_embedding_and_a_head() -> None:
    untied = config("Nemotron-3-Nano-30B-A3B")
    assert untied["tie_word_embeddings"] is False
    assert found("Nemotron-3-Nano-30B-A3B")["parameters"] == int(TRUTH["Nemotron-3-Nano-30B-A3B"]["parameters"])
    assert found("Nemotron-3-Nano-30B-A3B")["looked_up_embedding"] == untied["vocab_size"] * untied["hidden_size"]


def test_a_window_that_holds_every_context_is_full_attention() -> None:
    layers = read_config(config("Phi-4-mini-reasoning"), "phi").layers
    assert layers == (AttentionLayers(32, 24, 8, 128),)
