"""Page selection: scores every page from its summary and keeps the best ones, for each request and KV head."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dot import capped, dot
from sparse_backend.kernels.triton.layout import DecodeStep, LowRankOffsets, Workspace, power_of_2
from sparse_backend.kernels.triton.nibbles import high_half, low_half, neighbours


def select_pages(
    heads: Heads,
    step: DecodeStep,
    query: torch.Tensor,
    tiles: torch.Tensor,
    softmax: Softmax,
    work: Workspace,
    first: int,
    requests: int,
) -> None:
    """Fills `work.table`, `work.counts` and `work.log_mass` for the requests from `first` on.

    query: [tokens, kv_heads × num_queries_per_kv, head_size]; tiles: int8 [blocks, kv_heads, bytes].
    """
    queries, head_size, page_size = heads.num_queries_per_kv, heads.head_size, heads.page_size
    offsets = LowRankOffsets.of(head_size, page_size)
    padded_queries, capacity = power_of_2(queries), work.log_mass.shape[3]
    chunk = max(16, min(128, 8192 // (page_size * padded_queries)))
    _score[(requests, heads.kv_heads, pages(capacity, chunk))](
        query,
        tiles,
        tiles.view(torch.float32),
        tiles.view(torch.bfloat16),
        step.query_start,
        step.seq_lens,
        step.block_table,
        step.page_budget,
        work.log_mass,
        first,
        softmax.scale,
        step.block_table.stride(0),
        *query.stride()[:2],
        *tiles.stride()[:2],
        *work.log_mass.stride()[:3],
        G=queries,
        G_PADDED=padded_queries,
        D=head_size,
        D_PADDED=power_of_2(head_size),
        P=page_size,
        PAGES=heads.pages_of_tile,
        CHUNK=chunk,
        DIRECTIONS=offsets.directions,
        THIRD_DIRECTION=offsets.third_direction,
        COEFFICIENTS=offsets.coefficients,
        THIRD_COEFFICIENT=offsets.third_coefficient,
        SCALES=offsets.scales // 4,
        SELECTOR=heads.selector.name,
        SOFT_CAP=float(softmax.soft_cap),
        LOG_P=math.log(page_size),
        num_warps=4,
    )
    padded = power_of_2(capacity)
    _select[(requests, heads.kv_heads)](
        step.seq_lens,
        step.page_budget,
        work.log_mass,
        work.table,
        work.counts,
        work.top if softmax.sinks is None else softmax.sinks,
        first,
        *work.log_mass.stride()[:3],
        *work.table.stride()[:2],
        work.table.shape[2],
        work.counts.stride(0),
        G=queries,
        P=page_size,
        CAPACITY=padded,
        SINK=pages(heads.sink_tokens, page_size),
        LOCAL_TOKENS=heads.local_tokens,
        SOFTMAX=heads.selector.name != "block_mean",
        SINKS=softmax.sinks is not None,
        num_warps=max(4, min(16, padded // 512)),
    )


@triton.jit
def _score(
    query,
    tiles,
    tiles32,
    tiles16,
    query_start,
    seq_lens,
    block_table,
    page_budget,
    log_mass,
    first,
    scale,
    table_stride,
    query_token,
    query_head,
    tile_block,
    tile_head,
    mass_request,
    mass_head,
    mass_query,
    G: tl.constexpr,
    G_PADDED: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    P: tl.constexpr,
    PAGES: tl.constexpr,
    CHUNK: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    THIRD_DIRECTION: tl.constexpr,
    COEFFICIENTS: tl.constexpr,
    THIRD_COEFFICIENT: tl.constexpr,
    SCALES: tl.constexpr,
    SELECTOR: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    LOG_P: tl.constexpr,
):
    """One program per (request, KV head, chunk of pages): estimates log Σ e^logit of complete pages, by query head.

    Also of pages that are read anyway, since scores are shares of the whole.
    """
    in_wave, head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    complete = tokens // P
    begin = tl.program_id(2) * CHUNK
    # A budget that covers all pages, or 0, needs no scores.
    if (begin >= complete) | (budget * P >= tokens) | (budget == 0):
        return
    page = begin + tl.arange(0, CHUNK)
    scored = page < complete
    block = tl.load(block_table + request * table_stride + page // PAGES, scored, 0).to(tl.int64)
    slot = page % PAGES
    tile = block * tile_block + head * tile_head
    d, g = tl.arange(0, D_PADDED), tl.arange(0, G_PADDED)
    wide = scored[:, None] & (d[None, :] < D)
    token = tl.load(query_start + request).to(tl.int64)
    q_at = query + token * query_token + (head * G + g[None, :]) * query_head + d[:, None]
    q = tl.load(q_at, (g[None, :] < G) & (d[:, None] < D), 0.0)  # [head_size, queries]
    at = (tile + slot * D)[:, None] + d[None, :]
    if SELECTOR == "low_rank":
        mean = tl.load(tiles + at, wide, 0).to(tl.float32).to(q.dtype)
        codes = tl.load(tiles + DIRECTIONS + at, wide, 0)
        scales = tiles32 + tile // 4 + SCALES + slot
        mean_scale = tl.load(scales, scored, 0.0) * scale
        scale0 = tl.load(scales + PAGES, scored, 0.0) * scale
        scale1 = tl.load(scales + 2 * PAGES, scored, 0.0) * scale
        scale2 = tl.load(scales + 3 * PAGES, scored, 0.0) * scale
        half_d, half_t = tl.arange(0, D_PADDED // 2), tl.arange(0, P // 2)
        at = (tile + slot * (D // 2))[:, None] + half_d[None, :]
        third = tl.load(tiles + THIRD_DIRECTION + at, scored[:, None] & (half_d[None, :] < D // 2), 0)
        base = dot(mean, q) * mean_scale[:, None]
        slope0 = dot(low_half(codes).to(q.dtype), q) * scale0[:, None]
        slope1 = dot(high_half(codes).to(q.dtype), q) * scale1[:, None]
        slope2 = dot(neighbours(third).to(q.dtype), q) * scale2[:, None]
        at = (tile + slot * P)[:, None] + tl.arange(0, P)[None, :]
        pair = tl.load(tiles + COEFFICIENTS + at, scored[:, None], 0)
        at = (tile + slot * (P // 2))[:, None] + half_t[None, :]
        third = tl.load(tiles + THIRD_COEFFICIENT + at, scored[:, None], 0)
        # [pages, tokens, queries]
        logits = base[:, None, :] + slope0[:, None, :] * low_half(pair)[:, :, None]
        logits += slope1[:, None, :] * high_half(pair)[:, :, None]
        logits += slope2[:, None, :] * neighbours(third)[:, :, None]
        top = tl.max(logits, 1)
        mass = top + tl.log(tl.sum(tl.exp(logits - top[:, None, :]), 1))
    elif SELECTOR == "quest":
        at = (tile // 2 + slot * D)[:, None] + d[None, :]
        low = tl.load(tiles16 + at, wide, 0.0).to(q.dtype)
        high = tl.load(tiles16 + PAGES * D + at, wide, 0.0).to(q.dtype)
        wide_q = q.to(tl.float32)
        mass = dot(high, tl.maximum(wide_q, 0.0).to(q.dtype))
        mass += dot(low, tl.minimum(wide_q, 0.0).to(q.dtype))
        mass *= scale
    else:
        mean = tl.load(tiles16 + (tile // 2 + slot * D)[:, None] + d[None, :], wide, 0.0).to(q.dtype)
        mass = dot(mean, q) * scale
    if SOFT_CAP > 0:  # as if a page's tokens had equal shares of its mass
        mass = capped(mass - LOG_P, SOFT_CAP) + LOG_P
    out = log_mass + in_wave * mass_request + head * mass_head + g[None, :] * mass_query + page[:, None]
    tl.store(out, mass, scored[:, None] & (g[None, :] < G))


@triton.jit
def _select(
    seq_lens,
    page_budget,
    log_mass,
    table,
    counts,
    sink_logits,
    first,
    mass_request,
    mass_head,
    mass_query,
    table_request,
    table_head,
    table_size,
    counts_request,
    G: tl.constexpr,
    P: tl.constexpr,
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
    tl.store(table + in_wave * table_request + head * table_head + place, page, read & (place < table_size))
    count = tl.minimum(tl.sum(read.to(tl.int32)), table_size)
    tl.store(counts + in_wave * counts_request + head, count)
