"""Page selection: keeps the pages with the best scores, for each request and KV head."""

from __future__ import annotations

import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch
from sparse_backend.kernels.triton.layout import OF_A_STEP, DecodeStep, Workspace, power_of_2
from sparse_backend.selection.low_rank import means_of_block

WARPS = 8
MAX_WARPS = 32  # that a program can have
PAGES_OF_WARP = 1024  # with more, threads keep them in memory, which a GPU sets aside for all that it could run at once
REGISTERS = 128  # of a thread, that two programs fit a multiprocessor
MAX_REGISTERS = 65536 // 32  # of a program's warps together, for each of their threads
SMALL = 2048  # pages: requests of fewer don't wait for what the engine's longest would take
SCORES = tl.constexpr(8192)  # of pages and query heads, that a program looks at together
TURNS = tl.constexpr(10)  # of two bits each: scores that differ in their 12 lowest only are taken in order
DROPPED = tl.constexpr(12)
HIGHEST = tl.constexpr(1 << 18)
ROOM = tl.constexpr(1 << 21)  # of each of three counts in 64 bits


def choose_pages(heads: Heads, step: DecodeStep, softmax: Softmax, work: Workspace, first: int, requests: int) -> None:
    """Fills `work.table` and `work.counts` for the requests from `first` on.

    With the low-rank selector also `work.top_mass` and `work.weights`, for the pages that are not read.
    """
    queries, page_size = heads.num_queries_per_kv, heads.page_size
    capacity = power_of_2(work.log_mass.shape[3])
    warps = max(WARPS, min(MAX_WARPS, capacity // PAGES_OF_WARP))
    _select[(requests, heads.kv_heads)](
        step.seq_lens,
        step.block_table,
        step.page_budget,
        work.log_mass,
        work.top_mass,
        work.weights,
        work.table,
        work.counts,
        work.top if softmax.sinks is None else softmax.sinks,
        first,
        step.block_table.stride(0),
        *work.log_mass.stride()[:3],
        *work.weights.stride()[:3],
        *work.table.stride()[:2],
        work.table.shape[2],
        work.counts.stride(0),
        G=queries,
        G_PADDED=power_of_2(queries),
        P=page_size,
        PAGES=heads.pages_of_tile,
        CAPACITY=capacity,
        SMALL=min(SMALL, capacity),
        SINK=pages(heads.sink_tokens, page_size),
        LOCAL_TOKENS=heads.local_tokens,
        PAGES_OF_MEAN=heads.pages_of_tile // means_of_block(page_size),
        RESIDUAL=heads.selector.residual,
        SOFTMAX=heads.selector.name != "block_mean",
        SINKS=softmax.sinks is not None,
        num_warps=warps,
        maxnreg=min(REGISTERS, MAX_REGISTERS // warps),
        **dependent_launch(work.counts.device),
    )


@triton.jit(do_not_specialize=["first", "table_stride"], do_not_specialize_on_alignment=[*OF_A_STEP, "sink_logits"])
def _select(
    seq_lens,
    block_table,
    page_budget,
    log_mass,
    top_mass,
    weights,
    table,
    counts,
    sink_logits,
    first,
    table_stride,
    mass_request,
    mass_head,
    mass_query,
    weight_request,
    weight_head,
    weight_query,
    chosen_request,
    chosen_head,
    table_size,
    counts_request,
    G: tl.constexpr,
    G_PADDED: tl.constexpr,
    P: tl.constexpr,
    PAGES: tl.constexpr,
    CAPACITY: tl.constexpr,
    SMALL: tl.constexpr,
    SINK: tl.constexpr,
    LOCAL_TOKENS: tl.constexpr,
    PAGES_OF_MEAN: tl.constexpr,
    SOFTMAX: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SINKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (request, KV head): the pages with the highest scores."""
    await_kernel_before(PDL)
    in_wave, head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    if budget == 0:
        return
    pages = tl.cdiv(tokens, P)
    sink = tl.minimum(SINK, pages)
    local = tl.maximum(sink, tl.maximum(tokens - LOCAL_TOKENS, 0) // P)
    wanted = tl.maximum(budget - sink - (pages - local), 0)
    log_mass += in_wave * mass_request + head * mass_head
    top_mass += (in_wave * tl.num_programs(1) + head) * G
    weights += in_wave * weight_request + head * weight_head
    sink_logits += head * G
    blocks = block_table + request * table_stride
    table += in_wave * chosen_request + head * chosen_head
    counts += in_wave * counts_request + head
    if pages <= SMALL:
        # fmt: off
        _choose(log_mass, mass_query, top_mass, weights, weight_query, sink_logits, blocks, table, table_size, counts,
                pages, tokens // P, sink, local, wanted, G, G_PADDED, PAGES, SMALL, PAGES_OF_MEAN,
                SOFTMAX, RESIDUAL, SINKS)
        # fmt: on
    elif CAPACITY > SMALL:
        # fmt: off
        _choose(log_mass, mass_query, top_mass, weights, weight_query, sink_logits, blocks, table, table_size, counts,
                pages, tokens // P, sink, local, wanted, G, G_PADDED, PAGES, CAPACITY, PAGES_OF_MEAN,
                SOFTMAX, RESIDUAL, SINKS)
        # fmt: on


@triton.jit
def _choose(
    log_mass,
    mass_query,
    top_mass,
    weights,
    weight_query,
    sink_logits,
    blocks,
    table,
    table_size,
    counts,
    pages,
    complete,
    sink,
    local,
    wanted,
    G: tl.constexpr,
    G_PADDED: tl.constexpr,
    PAGES: tl.constexpr,
    CAPACITY: tl.constexpr,
    PAGES_OF_MEAN: tl.constexpr,
    SOFTMAX: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Of the pages from `sink` to `local`, the `wanted` best, and all pages before and behind them."""
    TOGETHER: tl.constexpr = max(1, min(G_PADDED, SCORES // CAPACITY))  # query heads
    page = tl.arange(0, CAPACITY)
    # Where they lie, so that attention need not look that up again.
    where = tl.load(blocks + page // PAGES, page < pages, 0) * PAGES + page % PAGES
    candidate = (page >= sink) & (page < local)
    chosen = candidate
    if wanted < local - sink:
        # What all query heads together put on each page; pages that are read anyway take part.
        score = tl.zeros([CAPACITY], tl.float32)
        for begin in range(0, G, TOGETHER):
            g = begin + tl.arange(0, TOGETHER)
            at = log_mass + g[:, None] * mass_query + page[None, :]
            real = (g[:, None] < G) & (page[None, :] < complete)
            if SOFTMAX:
                x = tl.load(at, real, -1e30)
                top = tl.max(x, 1)
                if SINKS:
                    no_value = tl.load(sink_logits + g, g < G, -1e30).to(tl.float32)
                    top = tl.maximum(top, no_value)
                weight = tl.exp(x - top[:, None])
                total = tl.sum(weight, 1)
                if SINKS:
                    total += tl.exp(no_value - top)
                score += tl.sum(tl.where(real, weight / total[:, None], 0.0), 0)
                if RESIDUAL:
                    tl.store(top_mass + g, top, g < G)
            else:
                score += tl.sum(tl.load(at, real, 0.0), 0)
        # As integers in the same order, 0 for what can't be chosen.
        bits = score.to(tl.int32, bitcast=True)
        key = tl.where(bits < 0, ~bits, bits | -0x80000000).to(tl.uint32, bitcast=True)
        key = tl.where(candidate, key >> DROPPED, 0).to(tl.int32)
        # No sort: the smallest score to be chosen, two bits a turn.
        threshold, unit = tl.full([], 0, tl.int32), tl.full([], HIGHEST, tl.int32)
        for _ in range(TURNS):
            reached = (key >= threshold + unit).to(tl.int64)
            reached += (key >= threshold + 2 * unit).to(tl.int64) * ROOM
            reached += (key >= threshold + 3 * unit).to(tl.int64) * (ROOM * ROOM)
            three = tl.sum(reached)
            enough = (three % ROOM >= wanted).to(tl.int32)
            enough += (three // ROOM % ROOM >= wanted).to(tl.int32)
            enough += (three // (ROOM * ROOM) >= wanted).to(tl.int32)
            threshold += unit * enough
            unit = unit // 4
        chosen = key > threshold
        equal = candidate & (key == threshold)
        missing = wanted - tl.sum(chosen.to(tl.int32))
        if tl.sum(equal.to(tl.int32)) > missing:
            equal = equal & (tl.cumsum(equal.to(tl.int32), 0) <= missing)
        chosen = chosen | equal
        if RESIDUAL:
            tl.debug_barrier()  # `top_mass` is complete
            mean = tl.arange(0, CAPACITY // PAGES_OF_MEAN)
            for begin in range(0, G, TOGETHER):
                g = begin + tl.arange(0, TOGETHER)
                real = (g[:, None] < G) & (candidate & ~chosen)[None, :]
                x = tl.load(log_mass + g[:, None] * mass_query + page[None, :], real, float("-inf"))
                weight = tl.exp(x - tl.load(top_mass + g, g < G, 0.0)[:, None])
                weight = tl.sum(tl.reshape(weight, [TOGETHER, CAPACITY // PAGES_OF_MEAN, PAGES_OF_MEAN]), 2)
                at = weights + g[:, None] * weight_query + mean[None, :]
                estimated = (g[:, None] < G) & (mean[None, :] * PAGES_OF_MEAN < local)
                tl.store(at, weight.to(weights.dtype.element_ty), estimated)
    read = chosen | (page < sink) | ((page >= local) & (page < pages))
    place = tl.cumsum(read.to(tl.int32), 0) - 1
    tl.store(table + place, where, read & (place < table_size))
    tl.store(counts, tl.minimum(tl.sum(read.to(tl.int32)), table_size))
