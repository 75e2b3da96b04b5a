"""Page selection: keeps the pages with the best scores, for each request and KV head."""

from __future__ import annotations

import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.layout import OF_A_STEP, DecodeStep, Workspace, power_of_2


def choose_pages(heads: Heads, step: DecodeStep, softmax: Softmax, work: Workspace, first: int, requests: int) -> None:
    """Fills `work.table` and `work.counts` for the requests from `first` on, and takes what is read out of
    `work.log_mass`."""
    queries, page_size = heads.num_queries_per_kv, heads.page_size
    padded = power_of_2(work.log_mass.shape[3])
    _select[(requests, heads.kv_heads)](
        step.seq_lens,
        step.block_table,
        step.page_budget,
        work.log_mass,
        work.table,
        work.counts,
        work.top if softmax.sinks is None else softmax.sinks,
        first,
        step.block_table.stride(0),
        *work.log_mass.stride()[:3],
        *work.table.stride()[:2],
        work.table.shape[2],
        work.counts.stride(0),
        G=queries,
        P=page_size,
        PAGES=heads.pages_of_tile,
        CAPACITY=padded,
        SINK=pages(heads.sink_tokens, page_size),
        LOCAL_TOKENS=heads.local_tokens,
        SOFTMAX=heads.selector.name != "block_mean",
        SINKS=softmax.sinks is not None,
        num_warps=max(4, min(16, padded // 512)),
    )


@triton.jit(do_not_specialize=["first", "table_stride"], do_not_specialize_on_alignment=OF_A_STEP)
def _select(
    seq_lens,
    block_table,
    page_budget,
    log_mass,
    table,
    counts,
    sink_logits,
    first,
    table_stride,
    mass_request,
    mass_head,
    mass_query,
    chosen_request,
    chosen_head,
    table_size,
    counts_request,
    G: tl.constexpr,
    P: tl.constexpr,
    PAGES: tl.constexpr,
    CAPACITY: tl.constexpr,
    SINK: tl.constexpr,
    LOCAL_TOKENS: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SINKS: tl.constexpr,
):
    """One program per (request, KV head): the pages with the highest scores, by bisection on the scores' bits.

    No sort: the k-th largest score is found bit by bit, 32 counts over scores that stay in registers.
    """
    in_wave, head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    if budget == 0:
        return
    pages = tl.cdiv(tokens, P)
    sink = tl.minimum(SINK, pages)
    local = tl.maximum(sink, tl.maximum(tokens - LOCAL_TOKENS, 0) // P)
    page = tl.arange(0, CAPACITY)
    candidate = (page >= sink) & (page < local)
    wanted = tl.maximum(budget - sink - (pages - local), 0)
    mass = log_mass + in_wave * mass_request + head * mass_head + page
    if wanted >= local - sink:
        chosen = candidate
    else:
        # What all query heads together put on each page; pages that are read anyway take part.
        score = tl.zeros([CAPACITY], tl.float32)
        for g in range(G):
            x = tl.load(mass + g * mass_query, page < tokens // P, float("-inf"))
            if SOFTMAX:
                top = tl.max(x)
                if SINKS:
                    no_value = tl.load(sink_logits + head * G + g)
                    top = tl.maximum(top, no_value)
                weight = tl.exp(x - top)
                total = tl.sum(weight)
                if SINKS:
                    total += tl.exp(no_value - top)
                score += weight / total
            else:
                score += x
        # As unsigned integers in the same order; 0 for what can't be chosen.
        bits = score.to(tl.int32, bitcast=True)
        key = tl.where(bits < 0, ~bits, bits | -0x80000000).to(tl.uint32, bitcast=True)
        key = tl.where(candidate, key, 0)
        threshold = tl.zeros([], tl.uint32)
        for i in range(32):
            higher = threshold | (tl.full([], 1 << 31, tl.uint32) >> i)
            enough = tl.sum((key >= higher).to(tl.int32)) >= wanted
            threshold = tl.where(enough, higher, threshold)
        above = key > threshold
        equal = candidate & (key == threshold)
        missing = wanted - tl.sum(above.to(tl.int32))
        chosen = above | (equal & (tl.cumsum(equal.to(tl.int32), 0) <= missing))
        for g in range(G):
            # What is read no longer counts as estimated.
            tl.store(mass + g * mass_query, float("-inf"), chosen)
    read = chosen | (page < sink) | ((page >= local) & (page < pages))
    place = tl.cumsum(read.to(tl.int32), 0) - 1
    # Where they lie, so that attention need not look that up again.
    block = tl.load(block_table + request * table_stride + page // PAGES, read, 0)
    where = block * PAGES + page % PAGES
    tl.store(table + in_wave * chosen_request + head * chosen_head + place, where, read & (place < table_size))
    count = tl.minimum(tl.sum(read.to(tl.int32)), table_size)
    tl.store(counts + in_wave * counts_request + head, count)
