"""Whole decode steps of a vLLM engine, stock and with sparse attention: what does a user see of it?

Dummy weights in a model's shape; every request has a KV cache of its own, filled with random numbers instead of by a
prefill, which would take most of an hour. Of the smaller shape also with one prompt for all requests, as samples have,
which is prefilled and then found in the prefix cache. The two engines take turns, each in a process of its own.

    python -m benchmarks.step_speed [--shape qwen3-0.6b|smollm2] [--times-budget 16] [--rounds N] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.attention_speed import SHAPES, machine
from kinetics_serve.engine.embedded.launch import multiplies_bf16
from sparse_backend.constants import BLOCK

SIDES = ("stock", "sparse")
WARM_UP = 2  # steps that aren't counted
FILL = 2**25  # random numbers, copied all over the cache
SHARED = ("smollm2",)  # a prompt of the other shape takes too long to prefill


def contexts_of(shape: dict[str, Any], times_budget: int) -> list[int]:
    """Tokens: within the budget, the budget, and far beyond it."""
    return [shape["budget"] // 2, shape["budget"], times_budget * shape["budget"]]


def dtype() -> Literal["bfloat16", "float32"]:
    """What an engine serves in here."""
    return "bfloat16" if multiplies_bf16() else "float32"


def engine(shape: dict[str, Any], folder: str, longest: int, sparse: bool, **options: Any) -> Any:
    from vllm import LLM

    more = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "bos_token_id": 0}
    Path(folder, "config.json").write_text(json.dumps({**shape["config"], **more}))
    return LLM(
        folder,
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=longest + BLOCK,
        max_num_seqs=shape["batch"],
        additional_config={"sparse_attention": {"kv_budget": shape["budget"]}} if sparse else {},
        dtype=dtype(),
        **options,
    )


def filled_engine(shape: dict[str, Any], folder: str, longest: int, sparse: bool) -> Any:
    """Its requests find all but their last prompt token in the KV cache."""
    from vllm.distributed.kv_transfer.kv_connector.v1.decode_bench_connector import DecodeBenchConnectorWorker

    # `fill` does it, when the plugin has seen the cache and before anything else touches the memory.
    DecodeBenchConnectorWorker.register_kv_caches = lambda self, kv_caches: None  # type: ignore[method-assign]
    if sparse:
        from sparse_backend.backends import choice, cpu

        for module in (choice, cpu):  # they refuse a connector, whose blocks have no summaries: `fill` makes them
            setattr(module, "check_engine", lambda vllm_config: None)  # noqa: B010  mypy: it is not exported
    connector = {
        "kv_connector": "DecodeBenchConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"startup_fill": True},
    }
    llm = engine(shape, folder, longest, sparse, enable_prefix_caching=False, kv_transfer_config=connector)
    llm.collective_rpc(fill)
    return llm


def fill(worker: Any) -> None:
    """Random keys and values in every layer's cache, and the summaries of a sparse one. Runs in the engine."""
    from sparse_backend.kernels import DecodeBatch

    numbers = torch.randn(FILL).bfloat16()
    for layer in worker.model_runner.compilation_config.static_forward_context.values():
        if hasattr(layer.impl, "regions"):
            cache, tiles = layer.impl.regions(layer.kv_cache)
        flat = layer.kv_cache.view(-1)
        for start in range(0, len(flat), FILL):
            part = flat[start : start + FILL]
            part.copy_(numbers[: len(part)])
        if not hasattr(layer.impl, "regions"):
            continue
        pages = torch.arange(len(cache), dtype=torch.int32)[None]
        tokens = torch.tensor([pages.numel() * layer.impl.heads.kernel_block_tokens], dtype=torch.int32)
        none, zero = torch.zeros(0, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        batch = DecodeBatch(tokens, pages, none, none, none, none)
        layer.impl.kernels.update_summaries(layer.impl.heads, batch, cache, tiles, zero, zero)


def measure(shape: dict[str, Any], times_budget: int, steps: int, sparse: bool, shared: bool) -> dict[int, float]:
    """Median milliseconds of a decode step at each context; of a shared prompt at the longest."""
    contexts = contexts_of(shape, times_budget)
    with tempfile.TemporaryDirectory() as folder:
        if not shared:
            llm = filled_engine(shape, folder, max(contexts), sparse)
            return {context: step_ms(llm, context, shape["batch"], steps) for context in contexts}
        llm = engine(shape, folder, max(contexts), sparse, enable_prefix_caching=True)
        step_ms(llm, max(contexts), 1, steps)  # its prompt is in the prefix cache from here on
        return {max(contexts): step_ms(llm, max(contexts), shape["batch"], steps)}


def step_ms(llm: Any, context: int, batch: int, steps: int) -> float:
    """The median of so many requests' last steps, which end at `context`."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=steps + WARM_UP, ignore_eos=True, detokenize=False)
    prompt = {"prompt_token_ids": [i % 1000 + 1 for i in range(context - steps - WARM_UP)]}
    for row in range(batch):
        llm.llm_engine.add_request(f"{context}-{batch}-{row}", prompt, sampling)
    seconds = []
    while llm.llm_engine.has_unfinished_requests():
        start = time.perf_counter()
        outputs = llm.llm_engine.step()
        if len(outputs) == batch:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:]) * 1e3


def in_turns(name: str, times_budget: int, steps: int, rounds: int, shared: bool) -> dict[str, dict[int, float]]:
    """The median over rounds of each side's steps, the sides alternating."""
    shape = SHAPES[name]
    seen: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    config = shape["config"]
    tokens = shape["batch"] * (contexts_of(shape, times_budget)[-1] + 2 * BLOCK)
    head_bytes = 2 * getattr(torch, dtype()).itemsize * config["head_dim"]
    kv_bytes = tokens * head_bytes * config["num_key_value_heads"] * config["num_hidden_layers"]
    gib = kv_bytes * 1.1 / 2**30  # and the summaries
    environment = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # so that `fill` gets at the cache
        "VLLM_CPU_KVCACHE_SPACE": str(max(1, -(-gib // 1))).removesuffix(".0"),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    for _ in range(rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.step_speed", "--side", side, "--shape", name]
            command += ["--times-budget", str(times_budget), "--steps", str(steps)] + ["--shared"] * shared
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            seen[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {side:6} " + "  ".join(f"{context}: {ms:.1f} ms" for context, ms in seen[side][-1].items()))
    return {
        side: {int(context): statistics.median(each[context] for each in rows) for context in rows[0]}
        for side, rows in seen.items()
    }


def ratios(shape: dict[str, Any], times_budget: int, ms: dict[str, dict[int, float]]) -> dict[str, float]:
    short, budget, long = contexts_of(shape, times_budget)
    return {
        "sparse(L) / dense(B)": ms["sparse"][long] / ms["stock"][budget],
        "stock(L) / sparse(L)": ms["stock"][long] / ms["sparse"][long],
        "sparse / stock at B / 2": ms["sparse"][short] / ms["stock"][short],
        "sparse / stock at B": ms["sparse"][budget] / ms["stock"][budget],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--times-budget", type=int, default=16, help="the long context L, in budgets B")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--shared", action="store_true", help="only those steps whose requests share their prompt")
    parser.add_argument("--out", type=Path, default=Path("results/step_speed.json"))
    args = parser.parse_args()
    names = args.shape or list(SHAPES)
    if args.side:
        shape, sparse = SHAPES[names[0]], args.side == "sparse"
        print(json.dumps(measure(shape, args.times_budget, args.steps, sparse, args.shared)))
        return
    results: dict[str, Any] = {"machine": machine(), "times_budget": args.times_budget}
    for name in names:
        print(f"{name}, batch {SHAPES[name]['batch']}, budget B = {SHAPES[name]['budget']}, L = {args.times_budget} B")
        results[name] = {}
        if not args.shared:
            ms = in_turns(name, args.times_budget, args.steps, args.rounds, False)
            results[name] = {"ms": ms, "ratios": ratios(SHAPES[name], args.times_budget, ms)}
            for label, value in results[name]["ratios"].items():
                print(f"  {label:24} {value:.2f}")
        if name in SHARED:
            print("  one prompt for all")
            ms = in_turns(name, args.times_budget, args.steps, args.rounds, True)
            ((long, stock),) = ms["stock"].items()
            results[name]["shared"] = {"ms": ms, "stock(L) / sparse(L)": stock / ms["sparse"][long]}
            print(f"  {'stock(L) / sparse(L)':24} {results[name]['shared']['stock(L) / sparse(L)']:.2f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
