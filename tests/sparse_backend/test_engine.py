"""A real vLLM engine with the plugin: what must hold when sparse attention is off, within budget, and on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    LagunaConfig,
    LagunaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from sparse_backend.backends.cpu.layout import block_stride, differ_in_shape
from sparse_backend.config import ConfigError

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
]

# Tiny, with random weights: what matters here is that numbers are the same, or are not.
CONFIG = {
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "hidden_size": 128,
    "intermediate_size": 256, "vocab_size": 512, "max_position_embeddings": 4096, "initializer_range": 0.15,
}  # fmt: skip
WINDOWED = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 128,
    "query_pre_attn_scalar": 32, **CONFIG, "num_hidden_layers": 3,
}  # fmt: skip


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**CONFIG))


def gemma() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**WINDOWED))


def gemma4() -> PreTrainedModel:
    kinds = {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"], "sliding_window": 128}
    sizes = {"global_head_dim": 64, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}
    return Gemma4ForCausalLM(Gemma4TextConfig(**CONFIG | {"num_hidden_layers": 3}, **kinds, **sizes))


def laguna() -> PreTrainedModel:
    heads = {"num_attention_heads_per_layer": [8, 4], "mlp_layer_types": ["dense"] * 2}
    return LagunaForCausalLM(LagunaConfig(**CONFIG, layer_types=["full_attention"] * 2, **heads))


SCRIPT = """
import json, sys
def main():
    from sparse_backend import plugin
    from vllm import LLM, SamplingParams
    job = json.loads(sys.argv[1])
    prompt = lambda n, seed: {"prompt_token_ids": [(i * i * 7 + i * seed) % 500 + 2 for i in range(n)]}
    results = {}
    for engine, settings in job["engines"].items():
        llm = LLM(job["model"], skip_tokenizer_init=True, enforce_eager=True, seed=0,
                  dtype="float32", max_model_len=2048, max_num_seqs=8, **settings)
        for name, run in job["runs"].items():
            params = [SamplingParams(temperature=run.get("temperature", 0), n=run.get("n", 1), seed=1,
                                     max_tokens=12, ignore_eos=True, detokenize=False, logprobs=1,
                                     extra_args={"kv_budget": b} if b is not None else None)
                      for b in run.get("budgets", [None] * len(run["prompts"]))]
            outputs = llm.generate([prompt(*p) for p in run["prompts"]], params, use_tqdm=False)
            results[engine + "/" + name] = [
                [o.token_ids, [next(iter(t.values())).logprob for t in o.logprobs]] for r in outputs for o in r.outputs]
        del llm
    print("RESULT " + json.dumps(results))
if __name__ == "__main__":
    main()
"""


def run_engines(
    folder: Path,
    engines: dict[str, Any],
    runs: dict[str, Any],
    new_model: Callable[[], PreTrainedModel] = llama,
    **variables: str,
) -> dict[str, Any]:
    """Each engine in turn answers every run, in a process of its own."""
    model = folder / "model"
    torch.manual_seed(0)
    new_model().save_pretrained(model)
    plugin = folder / "site" / "sparse_test-0.0.dist-info"  # the entry points, whether or not the project is installed
    plugin.mkdir(parents=True, exist_ok=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: sparse-test\nVersion: 0.0\n")
    (plugin / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nsparse_backend_test = sparse_backend.plugin:register\n"
        "[vllm.logits_processors]\nkv_budget_test = sparse_backend.request_budgets:RequestBudgets\n"
    )
    script = folder / "engines.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, str(plugin.parent), os.environ.get("PYTHONPATH", "")]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        **variables,
    }
    results: dict[str, Any] = {}
    for name, settings in engines.items():
        job = json.dumps({"model": str(model), "engines": {name: settings}, "runs": runs})
        done = subprocess.run(
            [sys.executable, str(script), job],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stdout + done.stderr
        results |= json.loads(lines[-1].removeprefix("RESULT "))
    return results


def sparse(**settings: Any) -> dict[str, Any]:
    return {"additional_config": {"sparse_attention": settings}}


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
    # Nearly whole: of 188 pages it reads 187.
    nearly = sparse(kv_budget=1496, page_size=8, selector="block_mean")
    engines = {"stock": {}, "sparse": sparse(kv_budget=256), "nearly": nearly}
    return run_engines(tmp_path_factory.mktemp("engines"), engines, runs)


def close(a: list[Any], b: list[Any]) -> bool:
    return all(
        x[0] == y[0] and max(abs(p - q) for p, q in zip(x[1], y[1], strict=True)) < 1e-4
        for x, y in zip(a, b, strict=True)
    )


def test_requests_within_their_budget_equal_stock_vllm_bit_for_bit(results: dict[str, Any]) -> None:
    assert results["sparse/short"] == results["stock/short"]


def test_a_long_dense_request_equals_stock_vllm(results: dict[str, Any]) -> None:
    # Not bit for bit: how many of its tokens the stock kernel sums at a time depends on the page size and the L2 cache.
    assert close(results["sparse/dense"], results["stock/dense"])


def test_a_long_request_is_sparse(results: dict[str, Any]) -> None:
    assert results["sparse/long"] != results["stock/long"]


def near(sparse: list[Any], dense: list[Any]) -> bool:
    """Some tokens of decode are the same, with nearly the same probabilities; the first comes from the prefill."""
    (tokens, logprobs), (dense_tokens, dense_logprobs) = sparse[0], dense[0]
    differences = [abs(a - b) for a, b in zip(logprobs[:4], dense_logprobs[:4], strict=True)]
    return tokens[:4] == dense_tokens[:4] and 0 < max(differences) < 0.1


def test_a_budget_near_the_context_is_near_dense(results: dict[str, Any]) -> None:
    assert near(results["nearly/long"], results["stock/long"])


def test_the_prefix_cache_brings_its_summaries(results: dict[str, Any]) -> None:
    assert close(results["sparse/again"], results["sparse/long"])


def test_budgets_stay_with_their_requests_in_a_mixed_batch(results: dict[str, Any]) -> None:
    mixed = results["sparse/mixed"]
    assert close([mixed[0]], results["sparse/long"])
    assert close([mixed[1]], results["sparse/short"][:1])
    assert close([mixed[3]], results["sparse/alone"])
    assert close([mixed[2]], [results["stock/mixed"][2]])


def test_several_samples_of_one_prompt_share_its_summaries(results: dict[str, Any]) -> None:
    assert len(results["sparse/forked"]) == 3
    first = [sample[1][0] for sample in results["sparse/forked"]]
    assert all(logprob <= 0 for logprob in first)


def test_tensor_parallelism_gives_the_same(results: dict[str, Any], tmp_path: Path) -> None:
    runs = {"long": {"prompts": [(1500, 3)]}}
    engine = {**sparse(kv_budget=256), "tensor_parallel_size": 2}
    # On one NUMA node vLLM wants to be told which cores each of the two workers gets.
    parallel = run_engines(tmp_path, {"tp2": engine}, runs, VLLM_CPU_OMP_THREADS_BIND="0|1")
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
    engine: Any = SimpleNamespace(attention_layers=lambda: layers)
    with pytest.raises(ConfigError, match="layers of 192 and of 128 dimensions"):
        block_stride(engine, 2, 64)


def test_a_configuration_that_cannot_work_stops_the_engine(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="set it to 128"):
        run_engines(tmp_path, {"bad": {**sparse(kv_budget=256), "block_size": 64}}, {})
