"""Model families beside Llama's, on a real vLLM engine: sparse where they should be, else equal to stock vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from transformers import PreTrainedModel

from kinetics_serve.cost import AttentionLayers, Price, load_architecture
from kinetics_serve.engine.info import read_info
from tests.sparse_backend.engines import (
    close,
    gemma,
    gemma2,
    glm4,
    gpt_oss,
    llama4,
    near,
    qwen3_moe,
    qwen3_next,
    run_engines,
    sparse,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]

# Pages of 32 are what the stock kernel works in by default, so what is dense has the same bits at any length.
RUNS = {
    "short": {"prompts": [(100, 5), (90, 7)]},
    "long": {"prompts": [(1500, 3)]},
    "dense": {"prompts": [(1500, 3)], "budgets": [0]},  # after a hit in the prefix cache
    "nearly": {"prompts": [(1500, 3)], "budgets": [1472]},
}


PROMPT_TOKENS, TOKENS, KV_BUDGET = 700, 24, 256


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param(glm4, {}, id="GLM-4"),
        pytest.param(qwen3_moe, {}, id="experts"),
        pytest.param(gemma, {}, id="windows"),
        pytest.param(gpt_oss, {}, id="sinks"),
        pytest.param(gemma2, {}, id="soft cap"),
        pytest.param(llama4, {}, id="chunked layers"),
        # The kernels of its linear layers take nothing else.
        pytest.param(qwen3_next, {"dtype": "bfloat16", "enable_prefix_caching": True}, id="hybrid"),
    ],
)
def test_long_requests_are_sparse_all_else_equals_stock_vllm_and_the_bill_is_what_layers_attended_to(
    model: Callable[[], PreTrainedModel], settings: dict[str, Any], tmp_path: Path
) -> None:
    engines = {"stock": settings, "sparse": {**settings, **sparse(kv_budget=KV_BUDGET, page_size=32)}}
    results = run_engines(tmp_path, engines, RUNS, model, counted=(PROMPT_TOKENS, TOKENS))
    assert close(results["sparse/short"], results["stock/short"])
    assert close(results["sparse/dense"], results["stock/dense"])
    assert not close(results["sparse/long"], results["stock/long"])
    if model is not qwen3_moe:  # a random router makes other tokens of one page less
        assert near(results["sparse/nearly"], results["stock/nearly"])

    counted = results["counted"]
    assert counted["steps"] == TOKENS - 1  # the first token comes from the prefill
    engine = read_info(counted["metrics"])
    architecture = engine.architecture(load_architecture(tmp_path / "model"))
    attention = tuple(group for group in architecture.layers if isinstance(group, AttentionLayers))
    kv = replace(engine.kv_policy(architecture), summary_vectors=0)
    price = Price(replace(architecture, layers=attention), 1.0)
    bill = price.decode(PROMPT_TOKENS, counted["steps"], kv).memory_bytes
    assert counted["bytes"] <= bill
    assert counted["bytes"] == pytest.approx(bill, rel=0.01)  # budgets are whole pages
