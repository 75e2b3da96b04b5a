"""A real vLLM engine with the plugin: what must hold when sparse attention is off, within budget, and on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

from sparse_backend.backends.cpu.layout import block_stride, differ_in_shape
from sparse_backend.config import ConfigError
from tests.sparse_backend.engines import alike, close, gemma, gemma4, laguna, mistral, near, run_engines, sparse

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]

ENGINES = {"stock": {}, "sparse": sparse(kv_budget=256)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    long, short = (1500, 3), (200, 5)
    runs = {
        "short": {"prompts": [short, (90, 7)]},
        "long": {"prompts": [long]},
        "again": {"prompts": [long]},  # from the prefix cache
        "dense": {"prompts": [long], "budgets": [0]},
        "mixed": {"prompts": [long, short, (1490, 3), (1100, 9)], "budgets": [None, None, 0, 512]},
        "alone": {"prompts": [(1100, 9)], "budgets": [512]},
        "forked": {"prompts": [long], "n": 3, "temperature": 0.8},
    }
    return run_engines(tmp_path_factory.mktemp("engines"), ENGINES, runs, apart=True)


def test_requests_within_their_budget_equal_stock_vllm_bit_for_bit(results: dict[str, Any]) -> None:
    assert results["sparse/short"] == results["stock/short"]


def test_a_long_dense_request_equals_stock_vllm(results: dict[str, Any]) -> None:
    # Not bit for bit: how many of its tokens the stock kernel sums at a time depends on the page size and the L2 cache.
    assert close(results["sparse/dense"], results["stock/dense"])


def test_a_long_request_is_sparse(results: dict[str, Any]) -> None:
    assert results["sparse/long"] != results["stock/long"]


def test_the_prefix_cache_brings_its_summaries(results: dict[str, Any]) -> None:
    assert close(results["sparse/again"], results["sparse/long"])


def test_budgets_stay_with_their_requests_in_a_mixed_batch(results: dict[str, Any]) -> None:
    mixed = results["sparse/mixed"]
    assert alike([mixed[0]], results["sparse/long"])
    assert close([mixed[1]], results["sparse/short"][:1])
    assert alike([mixed[3]], results["sparse/alone"])
    assert close([mixed[2]], [results["stock/mixed"][2]])


def test_budgets_stay_with_their_requests_in_vllm_s_second_model_runner(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM takes it where Triton has a backend for CPUs. Here Triton's interpreter stands in for that."""
    (tmp_path / "sitecustomize.py").write_text(
        "from types import SimpleNamespace\n"
        "import triton.backends\n"
        "driver = SimpleNamespace(is_active=lambda: False)\n"
        "triton.backends.backends['cpu'] = SimpleNamespace(driver=driver, compiler=None)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    runs = {"mixed": {"prompts": [(1500, 3), (1490, 3), (1100, 9)], "budgets": [None, 0, 512]}}
    second: dict[str, Any] = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
    mixed = run_engines(tmp_path, {"sparse": ENGINES["sparse"]}, runs, apart=True, **second)["sparse/mixed"]
    assert alike([mixed[0]], results["sparse/long"])
    assert close([mixed[1]], [results["stock/mixed"][2]])
    assert alike([mixed[2]], results["sparse/alone"])


def test_several_samples_of_one_prompt_share_its_summaries(results: dict[str, Any]) -> None:
    assert len(results["sparse/forked"]) == 3
    first = [sample[1][0] for sample in results["sparse/forked"]]
    assert all(logprob <= 0 for logprob in first)


def test_tensor_parallelism_gives_the_same(results: dict[str, Any], tmp_path: Path) -> None:
    runs = {"long": {"prompts": [(1500, 3)]}}
    engine = {**sparse(kv_budget=256), "tensor_parallel_size": 2}
    # On one NUMA node vLLM wants to be told which cores each of the two workers gets.
    parallel = run_engines(tmp_path, {"tp2": engine}, runs, apart=True, VLLM_CPU_OMP_THREADS_BIND="0|1")
    (_, two), (_, one) = parallel["tp2/long"][0], results["sparse/long"][0]
    assert abs(two[0] - one[0]) < 1e-2


def test_speculative_decoding_stays_near_dense(tmp_path: Path) -> None:
    """Its steps of several tokens are dense, those without a draft sparse. Rejected drafts: see test_summaries."""
    runs = {"repeated": {"prompts": [(1500, 0)]}}
    ngram = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 2}
    engines = {"stock": {}, "sparse": {**sparse(kv_budget=1200), "speculative_config": ngram}}
    results = run_engines(tmp_path, engines, runs)
    (tokens, logprobs), (stock_tokens, stock_logprobs) = results["sparse/repeated"][0], results["stock/repeated"][0]
    assert tokens == stock_tokens
    assert max(abs(a - b) for a, b in zip(logprobs, stock_logprobs, strict=True)) < 0.15


def test_sliding_window_layers_stay_as_they_are(tmp_path: Path) -> None:
    runs = {
        "dense": {"prompts": [(1500, 3)], "budgets": [0]},
        "long": {"prompts": [(1500, 3)]},
        "nearly": {"prompts": [(1500, 3)], "budgets": [1472]},
    }
    # Pages of 32 are what the stock kernel works in by default, so its results are the same bits at any length.
    engines = {"stock": {}, "sparse": sparse(kv_budget=256, page_size=32, selector="block_mean")}
    results = run_engines(tmp_path, engines, runs, gemma)
    assert results["sparse/dense"] == results["stock/dense"]
    assert results["sparse/long"] != results["stock/long"]
    assert near(results["sparse/nearly"], results["stock/nearly"])


def test_a_model_whose_layers_all_have_windows_stays_as_it_is_and_a_warning_says_so(tmp_path: Path) -> None:
    runs = {"long": {"prompts": [(1500, 3), (300, 5)]}}
    engines = {"stock": {}, "sparse": sparse(kv_budget=256)}
    results = run_engines(tmp_path, engines, runs, mistral, VLLM_LOGGING_LEVEL="WARNING")
    assert close(results["sparse/long"], results["stock/long"])
    assert "all stay dense (sliding window: 0-1)" in (tmp_path / "said").read_text()


def test_layers_may_have_gqa_ratios_of_their_own(tmp_path: Path) -> None:
    runs = {"long": {"prompts": [(1500, 3)]}, "nearly": {"prompts": [(1500, 3)], "budgets": [1472]}}
    engines = {"stock": {}, "sparse": sparse(kv_budget=256, selector="block_mean")}
    results = run_engines(tmp_path, engines, runs, laguna)
    assert results["sparse/long"] != results["stock/long"]
    assert near(results["sparse/nearly"], results["stock/nearly"])


def test_layers_of_several_shapes_share_blocks(tmp_path: Path) -> None:
    """Gemma 4's heads are larger where there is no window, and vLLM gives both kinds of layers the same memory."""
    runs = {
        "dense": {"prompts": [(1500, 3), (700, 5)], "budgets": [0, 0]},
        "long": {"prompts": [(1500, 3), (1400, 5)]},
        "nearly": {"prompts": [(1500, 3)], "budgets": [1472]},
    }
    engines = {"stock": {}, "sparse": sparse(kv_budget=256, selector="block_mean")}
    results = run_engines(tmp_path, engines, runs, gemma4)
    assert close(results["sparse/dense"], results["stock/dense"])
    assert results["sparse/long"] != results["stock/long"]
    assert near(results["sparse/nearly"], results["stock/nearly"])


def test_layers_differ_in_shape_where_they_share_memory() -> None:
    def layer(kv_heads: int, head_size: int, window: int | None) -> Any:
        return SimpleNamespace(num_kv_heads=kv_heads, head_size=head_size, sliding_window=window)

    assert not differ_in_shape([layer(2, 64, None), layer(2, 64, 128)])
    assert not differ_in_shape([layer(2, 64, None), layer(8, 128, None)])
    assert differ_in_shape([layer(2, 64, None), layer(4, 64, 128)])


def test_layers_whose_shapes_do_not_divide_each_other_are_refused() -> None:
    layers = {
        str(window): SimpleNamespace(num_kv_heads=heads, head_size=64, sliding_window=window)
        for heads, window in ((2, None), (3, 128))
    }
    engine: Any = SimpleNamespace(attention_layers=lambda: layers, hybrid=False)
    with pytest.raises(ConfigError, match="layers of 192 and of 128 dimensions"):
        block_stride(engine, 2, 64)


def test_a_configuration_that_cannot_work_stops_the_engine(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="set it to 128"):
        run_engines(tmp_path, {"bad": {**sparse(kv_budget=256), "block_size": 64}}, {})


def test_engines_with_different_settings_work_in_one_process(results: dict[str, Any], tmp_path: Path) -> None:
    runs = {"long": {"prompts": [(1500, 3)]}, "short": {"prompts": [(200, 5), (90, 7)]}}
    nearly = sparse(kv_budget=1496, page_size=8, selector="block_mean")  # whole, but for one of 188 pages
    beside = run_engines(tmp_path, ENGINES | {"nearly": nearly}, runs)
    for name in ("stock/short", "stock/long", "sparse/short"):
        assert close(beside[name], results[name])
    assert alike(beside["sparse/long"], results["sparse/long"])  # it chooses pages
    assert near(beside["nearly/long"], results["stock/long"])


def test_a_selector_of_another_package_chooses_the_pages(
    results: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(Path(__file__).resolve().parents[2] / "examples" / "plugins", source)
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, *install], check=True)
    monkeypatch.setenv("PYTHONPATH", str(target))
    runs = {"long": {"prompts": [(1500, 3)]}, "dense": {"prompts": [(1500, 3)], "budgets": [0]}}
    theirs = run_engines(tmp_path, {"theirs": sparse(kv_budget=256, selector="largest_key")}, runs)
    assert close(theirs["theirs/dense"], results["stock/dense"])
    assert not close(theirs["theirs/long"], results["stock/long"])
    assert not close(theirs["theirs/long"], results["sparse/long"])
    with pytest.raises(AssertionError, match="block_mean, exact, largest_key, low_rank, quest"):
        run_engines(tmp_path, {"unknown": sparse(selector="best")}, {})
