import re
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.cost import (
    AttentionLayers,
    IndexLayers,
    LatentLayers,
    StateLayers,
    UnsupportedArchitecture,
    read_config,
)
from kinetics_serve.cost.families.table import FAMILIES, WRAPPERS
from kinetics_serve.cost.layers import Layers

from . import configs
from .test_checkpoints import config as served


def layers(config: dict[str, Any]) -> tuple[Layers, ...]:
    return read_config(config, "model").layers


def test_gemma3_slides_in_five_of_six_layers() -> None:
    assert layers(configs.GEMMA3_1B) == (
        AttentionLayers(22, 4, 1, 256, window=512),
        AttentionLayers(4, 4, 1, 256),
    )


def test_a_nested_gemma3_config_is_read_with_its_class_defaults() -> None:
    assert layers(configs.GEMMA3_4B) == (
        AttentionLayers(29, 8, 4, 256, window=1024),
        AttentionLayers(5, 8, 4, 256),
    )
    assert read_config(configs.GEMMA3_4B, "gemma").max_context == 131072


def test_layer_types_decide_over_the_pattern() -> None:
    types = ["full_attention"] * 2 + ["sliding_attention"] * 24
    assert layers({**configs.GEMMA3_1B, "layer_types": types}) == (
        AttentionLayers(2, 4, 1, 256),
        AttentionLayers(24, 4, 1, 256, window=512),
    )


def test_gemma2_slides_in_every_other_layer() -> None:
    config = {**configs.GEMMA3_1B, "model_type": "gemma2", "sliding_window": 4096}
    del config["sliding_window_pattern"]
    assert layers(config) == (
        AttentionLayers(13, 4, 1, 256, window=4096),
        AttentionLayers(13, 4, 1, 256),
    )


def test_qwen_slides_only_when_told_and_only_from_max_window_layers_on() -> None:
    assert layers(configs.QWEN2_5_0_5B) == (AttentionLayers(24, 14, 2, 64),)
    assert layers({**configs.QWEN2_5_0_5B, "use_sliding_window": True, "sliding_window": 4096}) == (
        AttentionLayers(21, 14, 2, 64),
        AttentionLayers(3, 14, 2, 64, window=4096),
    )


def test_mistral_slides_in_every_layer_and_mixtral_in_none() -> None:
    assert layers(configs.MISTRAL_7B) == (AttentionLayers(32, 32, 8, 128, window=4096),)
    assert layers(configs.MIXTRAL_8X7B) == (AttentionLayers(32, 32, 8, 128),)


def test_without_kv_heads_every_query_head_has_its_own() -> None:
    config = {**configs.LLAMA_3_8B, "num_key_value_heads": None}
    assert layers(config) == (AttentionLayers(32, 32, 32, 128),)


QWEN3_8B = configs.QWEN3["Qwen3-8B"]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768}, "'gpt2': an unknown type"),
        ({}, "None: an unknown type"),
        ({**QWEN3_8B, "linear_num_key_heads": 16}, "unknown linear_num_key_heads"),
        ({**QWEN3_8B, "num_experts": 16}, "unknown num_experts"),
        ({**configs.LLAMA_3_8B, "sliding_window": 512}, "unknown sliding_window"),
        ({**configs.LLAMA_3_8B, "layer_types": ["linear_attention"] * 32}, "'linear_attention'"),
        ({**configs.LLAMA_3_8B, "layer_types": ["sliding_attention"] * 32}, "no sliding_window"),
        ({**configs.LLAMA_3_8B, "layer_types": ["full_attention"] * 31}, "31 layer_types for 32 layers"),
        ({**configs.MIXTRAL_8X7B, "num_experts": 16}, "num_local_experts 8, but num_experts 16"),
        ({**configs.MIXTRAL_8X7B, "num_experts_per_tok": 9}, "num_experts_per_tok 9 of 8 experts"),
        ({**QWEN3_8B, "hidden_size": "4096"}, "hidden_size '4096', expected a whole number"),
        ({**QWEN3_8B, "num_hidden_layers": 10**9}, "at most 4096"),
        ({"model_type": "unknown_vl", "text_config": QWEN3_8B}, "a language model inside"),
        ({"model_type": "qwen3_vl", "text_config": None}, "text_config None"),
        ({**configs.GEMMA3_1B, "sliding_window": 0}, "sliding_window 0"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_what_was_found(config: dict[str, Any], found: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=re.escape(found)):
        layers(config)


def test_what_is_switched_off_need_not_be_known() -> None:
    assert layers({**QWEN3_8B, "num_shadow_experts": 0, "cross_layer_attention": None}) == layers(QWEN3_8B)


def test_a_list_of_layers_decides_over_a_pattern_and_gemma4s_full_layers_have_heads_of_their_own() -> None:
    full, sliding = AttentionLayers(5, 16, 2, 512), AttentionLayers(25, 16, 8, 256, window=1024)
    assert set(layers(served("Gemma-4-26B-A4B"))) == {full, sliding}


def test_what_transformers_writes_of_single_layers_decides() -> None:
    config = dict(served("Gemma-4-26B-A4B"))
    text = dict(config["text_config"])
    full = [index for index, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    own = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
    rewritten = {**config, "text_config": {**text, "per_layer_config": {str(index): own for index in full}}}
    assert layers(rewritten) == layers(config)
    for wrong in (3, {"5": 3}, {"5": {"head_dim": "x"}}, {"5": {"num_shadow_experts": 4}}):
        with pytest.raises(UnsupportedArchitecture):
            layers({**config, "text_config": {**text, "per_layer_config": wrong}})


def test_layers_that_read_the_kv_of_others_store_none() -> None:
    assert set(layers(served("Gemma-3n-E4B"))) == {
        AttentionLayers(16, 8, 2, 256, window=512),
        AttentionLayers(4, 8, 2, 256),
        AttentionLayers(12, 8, 2, 256, window=512, stores=False),
        AttentionLayers(3, 8, 2, 256, stores=False),
    }


def test_llama4_attends_in_chunks_but_in_every_fourth_layer() -> None:
    assert layers(served("Llama-4-Scout")) == (
        AttentionLayers(36, 40, 8, 128, chunk=8192),
        AttentionLayers(12, 40, 8, 128),
    )


def test_glm_5_2_has_an_indexer_in_some_layers_only() -> None:
    assert layers(served("GLM-5.2")) == (
        LatentLayers(78, 64, 512, 64, 192, 256, best=2048),
        IndexLayers(21, 32, 128, 132),
    )


def test_minimax_m3_selects_blocks_in_all_but_three_layers() -> None:
    assert layers(served("MiniMax-M3")) == (
        AttentionLayers(3, 64, 4, 128),
        AttentionLayers(57, 64, 4, 128, best=2048),
        IndexLayers(57, 4, 128, 256),
    )


def test_values_smaller_than_keys() -> None:
    assert layers(served("MiMo-V2-Flash")) == (
        AttentionLayers(9, 64, 4, 192, value_size=128),
        AttentionLayers(39, 64, 8, 192, window=128, value_size=128),
    )


def test_a_state_is_kept_in_the_dtype_that_the_checkpoint_asks_for() -> None:
    asked, silent = layers(served("Qwen3.5-27B"))[0], layers(served("Qwen3-Next-80B-A3B"))[0]
    assert isinstance(asked, StateLayers)
    assert isinstance(silent, StateLayers)
    assert (asked.element_bytes, silent.element_bytes) == (4, 2)


def test_step_3_5_has_more_heads_in_sliding_layers_and_is_as_large_as_published() -> None:
    kinds = ["full_attention", *["sliding_attention"] * 3] * 12
    config = {
        "model_type": "step3p5",
        "hidden_size": 4096,
        "intermediate_size": 11264,
        "num_hidden_layers": 45,
        "num_attention_heads": 64,
        "num_attention_groups": 8,
        "head_dim": 128,
        "vocab_size": 128896,
        "moe_num_experts": 288,
        "moe_top_k": 8,
        "moe_intermediate_size": 1280,
        "share_expert_dim": 1280,
        "moe_layers_enum": ",".join(map(str, range(3, 45))),
        "layer_types": kinds,
        "num_nextn_predict_layers": 3,
        "sliding_window": 512,
        "max_position_embeddings": 262144,
        "use_head_wise_attn_gate": True,
        "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8, "head_dim": 128},
    }
    architecture = read_config(config, "step")
    assert architecture.layers == (
        AttentionLayers(12, 64, 8, 128),
        AttentionLayers(33, 96, 8, 128, window=512),
    )
    assert architecture.parameters == pytest.approx(196e9, rel=0.01)
    embedding_and_head = 2 * 128896 * 4096  # which the published 11e9 leave out
    assert architecture.active_parameters - embedding_and_head == pytest.approx(11e9, rel=0.01)


def test_the_documentation_lists_every_known_type() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    assert [name for name in (*FAMILIES, *WRAPPERS) if f"`{name}`" not in text] == []


@pytest.mark.parametrize(("wrapper", "text"), WRAPPERS.items())
def test_a_multimodal_model_costs_what_its_language_model_does(wrapper: str, text: str | None) -> None:
    inside = {"model_type": text} if text is not None else dict(configs.LLAMA_3_8B)
    nested = read_config({"model_type": wrapper, "text_config": inside}, "model")
    assert nested == read_config(inside, "model")


def test_a_window_that_no_listed_layer_has_is_known() -> None:
    config = {**QWEN3_8B, "sliding_window": 4096, "layer_types": ["full_attention"] * 36}
    assert layers(config) == layers(QWEN3_8B)
