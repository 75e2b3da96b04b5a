"""Model families beside Llama's, on a real vLLM engine: sparse where they should be, else equal to stock vLLM."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from transformers import PreTrainedModel

from tests.sparse_backend.engines import close, gemma2, gpt_oss, llama4, near, qwen3_next, run_engines, sparse

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


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        pytest.param(gpt_oss, {}, id="sinks"),
        pytest.param(gemma2, {}, id="soft cap"),
        pytest.param(llama4, {}, id="chunked layers"),
        # The kernels of its linear layers take nothing else.
        pytest.param(qwen3_next, {"dtype": "bfloat16", "enable_prefix_caching": True}, id="hybrid"),
    ],
)
def test_long_requests_are_sparse_and_all_else_equals_stock_vllm(
    model: Callable[[], PreTrainedModel], settings: dict[str, Any], tmp_path: Path
) -> None:
    engines = {"stock": settings, "sparse": {**settings, **sparse(kv_budget=256, page_size=32)}}
    results = run_engines(tmp_path, engines, RUNS, model, together=True, VLLM_ENABLE_V1_MULTIPROCESSING="0")
    assert close(results["sparse/short"], results["stock/short"])
    assert close(results["sparse/dense"], results["stock/dense"])
    assert not close(results["sparse/long"], results["stock/long"])
    assert near(results["sparse/nearly"], results["stock/nearly"])
