"""Sparse decode attention on a GPU: correctness against float64, then bandwidth, then speed against dense attention.

    python -m benchmarks.attention_gpu [--contexts 8192 32768 131072] [--batch 4] [--json FILE]

Needs torch and Triton, not vLLM. One layer's whole decode step (summary update, page selection, attention), recorded
as a CUDA graph and replayed over several layers' caches, so that nothing is found in the L2 cache. Dense attention
is the faster of torch's SDPA on contiguous keys and values and of our own paged kernel reading every page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparse_backend.config import SparseAttentionConfig
from sparse_backend.constants import BLOCK, pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton import (
    DecodeStep,
    Workspace,
    attend,
    decode,
    split_blocks,
    tile_bytes_per_token,
    update_summaries,
)
from sparse_backend.kernels.triton.layout import tile_bytes
from sparse_backend.selection import get_selector
from sparse_backend.selection.low_rank import means_of_block, quantise

# Query heads, KV heads, head size.
MODELS = {"Qwen3-0.6B": (16, 8, 128), "Qwen3-8B": (32, 8, 128), "Qwen3-32B": (64, 8, 128)}
CACHE_BYTES = 2**30  # of keys and values that one measurement goes over at least
WORST_ERROR = 0.02  # relative, of a bfloat16 output against float64
NO_GPU = "No GPU here: this benchmark needs one that torch and Triton can use. Nothing was measured."


class Layer:
    """One layer's KV cache, filled and summarised, of `batch` requests of `context` tokens."""

    def __init__(self, heads: Heads, batch: int, context: int, device: torch.device) -> None:
        self.heads, self.scale = heads, heads.head_size**-0.5
        width = pages(context, BLOCK)
        share = tile_bytes_per_token(heads) // heads.dtype.itemsize
        kv_cache = torch.empty(
            batch * width, heads.kv_heads, BLOCK, 2 * heads.head_size + share, dtype=heads.dtype, device=device
        )
        self.cache, self.tiles = split_blocks(kv_cache, heads)
        for block in self.cache.split(256):
            # Keys that differ between pages more than within one, as real ones do.
            shape = (*block.shape[:2], heads.pages_of_tile, 1, block.shape[3])
            page = torch.randn(shape, device=device).expand(-1, -1, -1, heads.page_size, -1).flatten(2, 3)
            block.copy_(page + torch.randn(block.shape, device=device))
        query_heads = heads.kv_heads * heads.num_queries_per_kv
        self.query = torch.randn(batch, query_heads, heads.head_size, device=device).to(heads.dtype)
        self.output = torch.zeros_like(self.query)
        self.steps: dict[int, DecodeStep] = {}

        def int32(values: Any) -> torch.Tensor:
            return torch.as_tensor(values, dtype=torch.int32, device=device)

        table = torch.randperm(batch * width, device=device).view(batch, width)
        self.step = DecodeStep(
            int32(range(batch + 1)),
            int32([context] * batch),
            table.int(),
            int32([pages(context, heads.page_size)] * batch),
        )
        prefill = replace(self.step, query_start=self.step.query_start * context)
        update_summaries(heads, prefill, self.cache, self.tiles, context)

    def sparse(self, budget: int, work: Workspace) -> None:
        """A decode step under a budget of `budget` tokens, as an engine runs it."""
        step = self.step_of(budget)
        update_summaries(self.heads, step, self.cache, self.tiles, 1)
        decode(self.heads, step, self.query, self.cache, self.tiles, self.output, Softmax(self.scale), work)

    def step_of(self, budget: int) -> DecodeStep:
        """Made once, since a CUDA graph remembers its tensors."""
        if budget not in self.steps:
            read = torch.full_like(self.step.page_budget, budget // self.heads.page_size)
            self.steps[budget] = replace(self.step, page_budget=read)
        return self.steps[budget]

    def dense(self, work: Workspace) -> None:
        """Attention over all pages, which `work.table` lists, with the same kernel."""
        requests = len(self.query)
        attend(
            self.heads,
            self.step,
            self.query,
            self.cache,
            self.tiles,
            self.output,
            Softmax(self.scale),
            work,
            0,
            requests,
        )

    def tokens(self, row: int) -> torch.Tensor:
        """Keys and values of a request in order, [kv_heads, tokens, 2 × head_size]."""
        return self.cache[self.step.block_table[row].long()].transpose(0, 1).flatten(1, 2)

    def error(self, work: Workspace, budget: int, row: int) -> float:
        """Relative error of a request's output against float64, over the pages that were read and the estimated
        masses of the others."""
        heads = self.heads
        keys, values = self.tokens(row).double().split(heads.head_size, -1)
        query = self.query[row].double().view(heads.kv_heads, heads.num_queries_per_kv, -1)
        logits = query @ keys.mT * self.scale
        if budget < keys.shape[1]:
            read = torch.zeros(heads.kv_heads, keys.shape[1] // heads.page_size, dtype=torch.bool, device=keys.device)
            for head in range(heads.kv_heads):
                read[head, work.table[row, head, : work.counts[row, head]].long()] = True
            by_token = read.repeat_interleave(heads.page_size, 1)[:, None]
            mass = work.log_mass[row, ..., : read.shape[1]].double().masked_fill(read[:, None], -torch.inf)
            means = means_of_block(heads.page_size)
            codes, scale = quantise(values.unflatten(1, (-1, BLOCK // means)).mean(2), 7)
            mean_values = (codes * scale).repeat_interleave(heads.pages_of_tile // means, 1)
            logits = torch.cat([logits.masked_fill(~by_token, -torch.inf), mass], -1)
            values = torch.cat([values, mean_values], 1)
        expected = (torch.softmax(logits, -1) @ values).flatten(0, 1)
        return ((self.output[row].double() - expected).norm() / expected.norm()).item()


def seconds(work: Callable[[], object], rounds: int = 20) -> float:
    """Median time of `work`, recorded once as a CUDA graph and replayed."""
    work()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that a plain copy reads and writes."""
    source = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * CACHE_BYTES / seconds(lambda: target.copy_(source))


def bytes_read(heads: Heads, batch: int, context: int, budget: int) -> int:
    """Keys, values and summaries that a sparse step of one layer reads; of a dense one where they cover the context."""
    kept = 2 * heads.head_size * heads.dtype.itemsize * min(budget, context)
    summaries = tile_bytes(heads) * pages(context, BLOCK) if budget < context else 0
    return batch * heads.kv_heads * (kept + summaries)


def measure(model: str, context: int, args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One row of the table."""
    query_heads, kv_heads, head_size = MODELS[model]
    config = SparseAttentionConfig(selector=args.selector)
    heads = Heads(
        kv_heads,
        query_heads // kv_heads,
        head_size,
        args.page_size,
        torch.bfloat16,
        get_selector(args.selector),
        config.sink_tokens,
        config.local_tokens,
    )
    budget = context // args.share
    layer_bytes = bytes_read(heads, args.batch, context, context)
    layers = [Layer(heads, args.batch, context, device) for _ in range(max(1, -(-CACHE_BYTES // layer_bytes)))]
    work = Workspace.allocate(heads, args.batch, context, context, device)

    layers[0].sparse(budget, work)
    errors = {"sparse": layers[0].error(work, budget, 0)}
    # Every page, in order, for the dense kernel.
    everything = torch.arange(pages(context, heads.page_size), dtype=torch.int32, device=device)
    full = Workspace.allocate(heads, args.batch, context, context, device)
    full.table[:] = everything
    full.counts.fill_(len(everything))
    layers[0].dense(full)
    errors["dense"] = layers[0].error(full, context, 0)

    contiguous = [
        torch.stack([layer.tokens(row) for row in range(args.batch)]).split(head_size, -1) for layer in layers
    ]
    both = [(key.contiguous(), value.contiguous()) for key, value in contiguous]
    del contiguous

    def sparse() -> None:
        for layer in layers:
            layer.sparse(budget, work)

    def dense_paged() -> None:
        for layer in layers:
            layer.dense(full)

    def sdpa() -> None:
        for layer, (key, value) in zip(layers, both, strict=True):
            query = layer.query[:, :, None]
            torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    times = {
        "sparse": seconds(sparse) / len(layers),
        "dense_paged": seconds(dense_paged) / len(layers),
        "dense_sdpa": seconds(sdpa) / len(layers),
    }
    dense = min(times["dense_paged"], times["dense_sdpa"])
    read = bytes_read(heads, args.batch, context, budget)
    return {
        "model": model,
        "context": context,
        "budget": budget,
        "batch": args.batch,
        "error": errors,
        "seconds": times,
        "speedup": dense / times["sparse"],
        "bytes_of_dense": read / layer_bytes,
        "bytes_per_second": {
            "sparse": read / times["sparse"],
            "dense_paged": layer_bytes / times["dense_paged"],
            "dense_sdpa": layer_bytes / times["dense_sdpa"],
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 32768, 131072], help="multiples of 128")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--share", type=int, default=16, help="context / budget")
    parser.add_argument("--selector", default="low_rank")
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--json", type=Path, default=Path("results/attention_gpu.json"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    device = torch.device("cuda")
    torch.manual_seed(0)
    copy = copy_bandwidth(device)
    name = torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}; a copy reaches {copy / 1e9:.0f} GB/s\n")
    print(
        f"{'heads of':12}{'context':>9}{'budget':>8}{'error':>9}{'sparse µs':>11}{'paged µs':>10}{'SDPA µs':>9}"
        f"{'dense/sparse':>14}{'bytes':>8}{'of copy':>9}"
    )
    rows = []
    for model in args.models:
        for context in args.contexts:
            row = measure(model, context, args, device)
            rows.append(row)
            micro = {key: value * 1e6 for key, value in row["seconds"].items()}
            print(
                f"{model:12}{context:9}{row['budget']:8}{row['error']['sparse']:9.4f}{micro['sparse']:11.1f}"
                f"{micro['dense_paged']:10.1f}{micro['dense_sdpa']:9.1f}{row['speedup']:14.2f}"
                f"{row['bytes_of_dense']:8.1%}{row['bytes_per_second']['sparse'] / copy:9.0%}",
                flush=True,
            )
            torch.cuda.empty_cache()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"device": name, "copy_bytes_per_second": copy, "rows": rows}, indent=2) + "\n")
    wrong = [row for row in rows if max(row["error"].values()) > WORST_ERROR]
    if wrong:
        print(f"\n{len(wrong)} rows are wrong: their error against float64 exceeds {WORST_ERROR}.", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
