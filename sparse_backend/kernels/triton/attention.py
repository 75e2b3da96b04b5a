"""Attention over the selected pages: flash decoding, split over programs, then combined."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch
from sparse_backend.kernels.triton.dot import capped, dot
from sparse_backend.kernels.triton.layout import (
    MAX_SPLITS,
    OF_A_STEP,
    DecodeStep,
    LowRankOffsets,
    Workspace,
    parts,
    power_of_2,
)
from sparse_backend.kernels.triton.nibbles import BIAS, codes_for_dot
from sparse_backend.selection.low_rank import means_of_block

WARPS = 4
TOKENS = 32  # read at a time
STAGES = 5  # reads under way: page numbers, and the keys and values of two steps
MEANS = 32  # mean values that stand in for pages at a time


def attend(
    heads: Heads,
    step: DecodeStep,
    query: torch.Tensor,
    cache: torch.Tensor,
    tiles: torch.Tensor,
    output: torch.Tensor,
    softmax: Softmax,
    work: Workspace,
    first: int,
    requests: int,
) -> None:
    """Attends to the pages in `work.table`, for the requests from `first` on that have a page budget.

    query, output: [tokens, kv_heads × num_queries_per_kv, head_size], output is written; cache: [blocks, kv_heads,
    BLOCK, 2 × head_size]; tiles: int8 [blocks, kv_heads, bytes]. With the low-rank selector pages that are not read
    count too, as their estimated mass times a mean value.
    """
    queries, head_size = heads.num_queries_per_kv, heads.head_size
    offsets = LowRankOffsets.of(head_size, heads.page_size)
    of_pages, of_means = parts(work.programs, requests, heads)
    _attend[(requests, heads.kv_heads, of_pages + of_means)](
        query,
        cache,
        tiles,
        tiles.view(torch.float32),
        step.query_start,
        step.seq_lens,
        step.block_table,
        step.page_budget,
        work.top_mass,
        work.weights,
        work.table,
        work.counts,
        work.output,
        work.top,
        work.total,
        first,
        of_pages,
        softmax.scale,
        step.block_table.stride(0),
        *query.stride()[:2],
        *cache.stride()[:3],
        *tiles.stride()[:2],
        *work.weights.stride()[:3],
        *work.table.stride()[:2],
        work.counts.stride(0),
        G=queries,
        # Matrix products have 16 rows at least.
        G_PADDED=max(16, power_of_2(queries)),
        D=head_size,
        D_PADDED=power_of_2(head_size),
        P=heads.page_size,
        PAGES=heads.pages_of_tile,
        TOKENS=min(TOKENS, 16384 // (power_of_2(head_size) * heads.dtype.itemsize)),
        MEANS=MEANS,
        MEANS_OF_BLOCK=means_of_block(heads.page_size),
        SINK=pages(heads.sink_tokens, heads.page_size),
        LOCAL_TOKENS=heads.local_tokens,
        MEAN_VALUES=offsets.mean_values,
        VALUE_SCALES=offsets.value_scales // 4,
        RESIDUAL=heads.selector.residual,
        SOFT_CAP=float(softmax.soft_cap),
        num_warps=WARPS,
        num_stages=STAGES,
        **dependent_launch(query.device),
    )
    _combine[(requests, heads.kv_heads * queries)](
        step.query_start,
        step.page_budget,
        work.output,
        work.top,
        work.total,
        output,
        work.top if softmax.sinks is None else softmax.sinks,
        first,
        of_pages + of_means,
        *output.stride()[:2],
        H=heads.kv_heads,
        G=queries,
        D=head_size,
        D_PADDED=power_of_2(head_size),
        PARTS_PADDED=(2 if heads.selector.residual else 1) * MAX_SPLITS,
        SINKS=softmax.sinks is not None,
        num_warps=4,
        **dependent_launch(query.device),
    )


@triton.jit(
    do_not_specialize=["first", "of_pages", "table_stride", "query_token", "query_head"],
    do_not_specialize_on_alignment=["query", *OF_A_STEP],
)
def _attend(
    query,
    cache,
    tiles,
    tiles32,
    query_start,
    seq_lens,
    block_table,
    page_budget,
    top_mass,
    weights,
    table,
    counts,
    part_output,
    part_top,
    part_total,
    first,
    of_pages,
    scale,
    table_stride,
    query_token,
    query_head,
    cache_block,
    cache_head,
    cache_token,
    tile_block,
    tile_head,
    weight_request,
    weight_head,
    weight_query,
    selected_request,
    selected_head,
    counts_request,
    G: tl.constexpr,
    G_PADDED: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    P: tl.constexpr,
    PAGES: tl.constexpr,
    TOKENS: tl.constexpr,
    MEANS: tl.constexpr,
    MEANS_OF_BLOCK: tl.constexpr,
    SINK: tl.constexpr,
    LOCAL_TOKENS: tl.constexpr,
    MEAN_VALUES: tl.constexpr,
    VALUE_SCALES: tl.constexpr,
    RESIDUAL: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (request, KV head, part): softmax, unnormalised, over its share of the pages.

    The first `of_pages` parts share the pages that are read, the others the mean values of those that are not.
    """
    await_kernel_before(PDL)
    in_wave, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    if budget == 0:
        return
    d, g = tl.arange(0, D_PADDED), tl.arange(0, G_PADDED)
    token = tl.load(query_start + request).to(tl.int64)
    q_at = query + token * query_token + (head * G + g[:, None]) * query_head + d[None, :]
    q = tl.load(q_at, (g[:, None] < G) & (d[None, :] < D), 0.0)
    acc = tl.zeros([G_PADDED, D_PADDED], tl.float32)
    top = tl.full([G_PADDED], -1e30, tl.float32)
    total = tl.zeros([G_PADDED], tl.float32)

    if part < of_pages:
        count = tl.load(counts + in_wave * counts_request + head)
        # The last page may be incomplete.
        count = (count - 1) * P + tokens - (tl.cdiv(tokens, P) - 1) * P
        share = tl.cdiv(tl.cdiv(count, of_pages), TOKENS) * TOKENS
        end = tl.minimum(count, (part + 1) * share)
        selected = table + in_wave * selected_request + head * selected_head
        here = cache + head * cache_head
        for begin in range(part * share, end, TOKENS):
            n = begin + tl.arange(0, TOKENS)
            real = n < end
            page = tl.load(selected + n // P, real, 0)
            at = here + (page // PAGES).to(tl.int64) * cache_block + ((page % PAGES) * P + n % P) * cache_token
            wide = real[:, None] & (d[None, :] < D)
            keys = tl.load(at[:, None] + d[None, :], wide, 0.0)
            logits = capped(dot(q, tl.trans(keys)) * scale, SOFT_CAP)
            logits = tl.where(real[None, :], logits, float("-inf"))
            higher = tl.maximum(top, tl.max(logits, 1))
            weight = tl.exp(logits - higher[:, None])
            shrink = tl.exp(top - higher)
            values = tl.load(at[:, None] + D + d[None, :], wide, 0.0)
            acc = acc * shrink[:, None] + dot(weight.to(values.dtype), values)
            total = total * shrink + tl.sum(weight, 1)
            top = higher
    elif RESIDUAL:
        local = tl.maximum(SINK, tl.maximum(tokens - LOCAL_TOKENS, 0) // P)
        PAGES_OF_MEAN: tl.constexpr = PAGES // MEANS_OF_BLOCK
        # Where all pages are read, none is left to estimate.
        means = tl.where(budget * P < tokens, tl.cdiv(local, PAGES_OF_MEAN), 0)
        weight_at = weights + in_wave * weight_request + head * weight_head + g[:, None] * weight_query
        half_d = tl.arange(0, D_PADDED // 2)
        even = tl.zeros([G_PADDED, D_PADDED // 2], tl.float32)
        odd = tl.zeros([G_PADDED, D_PADDED // 2], tl.float32)
        bias = tl.zeros([G_PADDED], tl.float32)
        stride = (tl.num_programs(2) - of_pages) * MEANS
        for begin in range((part - of_pages) * MEANS, means, stride):
            mean = begin + tl.arange(0, MEANS)
            known = mean < means
            block = tl.load(block_table + request * table_stride + mean // MEANS_OF_BLOCK, known, 0).to(tl.int64)
            slot = mean % MEANS_OF_BLOCK
            tile = block * tile_block + head * tile_head
            at = tiles + (tile + MEAN_VALUES + slot * (D // 2))[:, None] + half_d[None, :]
            codes = tl.load(at, known[:, None] & (half_d[None, :] < D // 2), 0)
            value_scale = tl.load(tiles32 + tile // 4 + VALUE_SCALES + slot, known, 0.0)
            weight = tl.load(weight_at + mean[None, :], (g[:, None] < G) & known[None, :], 0.0).to(tl.float32)
            total += tl.sum(weight, 1)
            # float16 has no numbers for light pages' small values, but for their share in the largest.
            unit = tl.maximum(tl.max(value_scale), 1e-20) if q.dtype == tl.float16 else 1.0
            weight = (weight * (value_scale / unit)[None, :]).to(q.dtype)
            even += dot(weight, codes_for_dot(codes, 0, q.dtype)) * unit
            odd += dot(weight, codes_for_dot(codes, 4, q.dtype)) * unit
            bias += tl.sum(weight.to(tl.float32), 1) * unit
        bias *= BIAS(q.dtype)
        acc = tl.interleave(even - bias[:, None], odd - bias[:, None])
        if means > 0:
            top = tl.load(top_mass + (in_wave * tl.num_programs(1) + head) * G + g, g < G, -1e30)

    out = (in_wave * tl.num_programs(1) + head) * tl.num_programs(2) + part
    tl.store(part_output + (out * G + g[:, None]) * D + d[None, :], acc, (g[:, None] < G) & (d[None, :] < D))
    tl.store(part_top + out * G + g, top, g < G)
    tl.store(part_total + out * G + g, total, g < G)


@triton.jit(
    do_not_specialize=["first", "parts", "output_token", "output_head"],
    do_not_specialize_on_alignment=["output", "sink_logits", "query_start", "page_budget"],
)
def _combine(
    query_start,
    page_budget,
    part_output,
    part_top,
    part_total,
    output,
    sink_logits,
    first,
    parts,
    output_token,
    output_head,
    H: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    PARTS_PADDED: tl.constexpr,
    SINKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (request, query head)."""
    await_kernel_before(PDL)
    in_wave, query_head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    if tl.load(page_budget + request) == 0:
        return
    head, g = query_head // G, query_head % G
    d, part = tl.arange(0, D_PADDED), tl.arange(0, PARTS_PADDED)
    real = part < parts
    at = ((in_wave * H + head) * parts + part) * G + g
    top = tl.load(part_top + at, real, -1e30)
    highest = tl.max(top)
    if SINKS:
        sink = tl.load(sink_logits + query_head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    weight = tl.exp(top - highest)
    total = tl.sum(weight * tl.load(part_total + at, real, 0.0))
    if SINKS:
        total += tl.exp(sink - highest)
    wide = real[:, None] & (d[None, :] < D)
    acc = tl.load(part_output + at[:, None] * D + d[None, :], wide, 0.0)
    result = tl.sum(acc * weight[:, None], 0) / total
    token = tl.load(query_start + request).to(tl.int64)
    to = output + token * output_token + query_head * output_head + d
    tl.store(to, result.to(output.dtype.element_ty), d < D)
