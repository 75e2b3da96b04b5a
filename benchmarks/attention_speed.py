"""Is looking cheap next to attending? Sparse attention against vLLM's own, on the CPU.

Attention alone: summary update, selection and attention over one layer after another, against vLLM's kernel on the same
shape, in one process, in turns, medians. Whole decode steps: `benchmarks.step_speed`.

    python -m benchmarks.attention_speed [--shape qwen3-0.6b|smollm2]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import DecodeBatch, Heads, Softmax, cpu_kernels
from sparse_backend.kernels.batch import split_cache
from sparse_backend.kernels.huge_pages import use_huge_pages
from sparse_backend.selection import get_selector

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "batch": 4,
        "budget": 1024,
        "prompt": 14336,
        "config": {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": True,
            "rope_theta": 1000000.0,
        },
    },
    "smollm2": {
        "batch": 16,
        "budget": 512,
        "prompt": 7168,
        "config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "vocab_size": 49152,
            "max_position_embeddings": 16384,
            "tie_word_embeddings": True,
            "rope_theta": 100000.0,
        },
    },
}


def machine() -> str:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{model[0].split(':')[1].strip() if model else 'unknown CPU'}, {os.cpu_count()} cores"


def in_turns(functions: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each function, all of them called once a round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def attention(
    shape: dict[str, Any], shared: bool, selector_name: str, layers: int, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Times the attention of one decode step at context 16 × budget; a layer's mean.

    shared: the requests are samples of one prompt, whose blocks they share.
    """
    from vllm import _custom_ops as ops

    config, batch, budget = shape["config"], shape["batch"], shape["budget"]
    context, page_size, dtype = 16 * budget, 16, torch.bfloat16
    selector = get_selector(selector_name)
    kernels = cpu_kernels(selector)
    kv_heads, head_size = config["num_key_value_heads"], config["head_dim"]
    group = config["num_attention_heads"] // kv_heads
    heads = Heads(kv_heads, group, head_size, page_size, dtype, selector, 16, 64)
    blocks_each = context // BLOCK
    blocks = batch * blocks_each
    per_block = heads.pages_of_tile
    order = torch.randperm(blocks).view(batch, blocks_each).int()
    if shared:
        order[:, : shape["prompt"] // BLOCK] = order[0, : shape["prompt"] // BLOCK]
    table = (order[:, :, None] * per_block + torch.arange(per_block, dtype=torch.int32)).flatten(1).contiguous()
    requests = torch.arange(batch, dtype=torch.int32)
    seq_lens = torch.full((batch,), context, dtype=torch.int32)
    # As many steps as a page has tokens: summaries are made when a page is complete, so once in that many steps.
    steps = [
        DecodeBatch(
            seq_lens=seq_lens - page_size + 1 + i,
            block_table=table,
            requests=requests,
            tokens=requests,
            key_tokens=torch.full((batch,), selector.key_tokens(budget, page_size), dtype=torch.int32),
            value_tokens=torch.full((batch,), selector.value_tokens(budget), dtype=torch.int32),
        )
        for i in range(page_size)
    ]
    ours, stock = [], []
    share = heads.tile_bytes_per_token // dtype.itemsize
    for _ in range(layers):
        kv_cache = torch.empty(blocks * per_block, kv_heads, page_size, 2 * head_size + share, dtype=dtype)
        use_huge_pages(kv_cache)  # as the plugin does in an engine
        cache, tiles = split_cache(kv_cache.zero_(), heads)
        cache.normal_()
        for request in requests:  # one after another, for they may share blocks
            kernels.update_summaries(heads, steps[-1], cache, tiles, request[None], torch.zeros_like(request[None]))
        ours.append((cache, tiles))
        stock.append(torch.empty(blocks, kv_heads, 2 * BLOCK, head_size, dtype=dtype).normal_())
    query = torch.randn(batch, kv_heads * group, head_size).to(dtype)
    output, scale = torch.empty_like(query), head_size**-0.5
    starts = torch.arange(batch + 1, dtype=torch.int32)

    def vllm_attention(lens: torch.Tensor) -> None:
        metadata = ops.cpu_attn_get_scheduler_metadata(
            num_reqs=batch, num_heads=kv_heads * group, num_kv_heads=kv_heads, head_dim=head_size, seq_lens=lens,
            dtype=dtype, query_start_loc=starts, causal=True, sliding_window_size=-1, isa="vec", enable_kv_split=True,
            dynamic_causal=None, kv_cache_dtype="auto",
        )  # fmt: skip
        for kv in stock:
            keys, values = kv.chunk(2, 2)
            ops.cpu_attention_with_kv_cache(
                query=query, key_cache=keys, value_cache=values, output=output, query_start_loc=starts,
                seq_lens=lens, scale=scale, causal=True, alibi_slopes=None, sliding_window=-1, block_table=order,
                softcap=0, scheduler_metadata=metadata, s_aux=None, dynamic_causal=None, k_scale=1.0, v_scale=1.0,
                kv_cache_dtype="auto",
            )  # fmt: skip

    def sparse_attention() -> None:
        for step in steps:
            for cache, tiles in ours:
                kernels.update_summaries(heads, step, cache, tiles, requests, step.seq_lens - 1)
                kernels.decode(heads, step, query, cache, tiles, output, Softmax(scale))

    def selection() -> None:
        for _, tiles in ours:
            kernels.select_pages(heads, steps[-1], query, tiles, Softmax(scale))

    buffer = torch.zeros(2**26)  # 256 MiB
    short = torch.full((batch,), budget, dtype=torch.int32)
    seconds = in_turns(
        {
            "stock_long": lambda: vllm_attention(seq_lens),
            "stock_short": lambda: vllm_attention(short),
            "sparse": sparse_attention,
            "selection": selection,
            "read": buffer.sum,
        },
        rounds,
        clock,
    )
    seconds["sparse"] /= page_size
    tokens_read = selector.key_tokens(budget, page_size) + selector.value_tokens(budget)
    bytes_read = batch * kv_heads * (2 * head_size * tokens_read + heads.tile_bytes * blocks_each)
    bandwidth = buffer.nbytes / seconds["read"]
    return {
        "batch": batch,
        "context": context,
        "budget": budget,
        "selector": selector_name,
        **{f"{name}_ms": seconds[name] / layers * 1e3 for name in ("stock_long", "stock_short", "sparse", "selection")},
        "speedup": seconds["stock_long"] / seconds["sparse"],
        "bytes_share": bytes_read / (batch * kv_heads * 4 * head_size * context),
        "sparse_gb_s": bytes_read * layers / seconds["sparse"] / 1e9,
        "read_gb_s": bandwidth / 1e9,
        "of_bandwidth": bytes_read * layers / seconds["sparse"] / bandwidth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--selector", default="low_rank")
    parser.add_argument("--layers", type=int, default=3, help="distinct KV caches, so that none stays in the CPU cache")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread and its CPU time: on a machine that is not idle"
    )
    parser.add_argument("--out", type=Path, default=Path("results/attention_speed.json"))
    args = parser.parse_args()
    if args.cpu_time:
        torch.set_num_threads(1)
    clock = time.thread_time if args.cpu_time else time.perf_counter
    results: dict[str, Any] = {"machine": machine(), "clock": clock.__name__, "threads": torch.get_num_threads()}
    print(results)
    for name in args.shape or list(SHAPES):
        for shared in (False, True):
            label = f"{name}, one prompt for all" if shared else name
            results[label] = attention(SHAPES[name], shared, args.selector, args.layers, args.rounds, clock)
            print(label)
            for key, value in results[label].items():
                print(f"  {key:16} {value:.3f}" if isinstance(value, float) else f"  {key:16} {value}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
