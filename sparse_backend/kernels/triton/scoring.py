"""Page scores: which programs estimate them, for one request's queries or for a bundle's."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch
from sparse_backend.kernels.triton.estimate import estimate
from sparse_backend.kernels.triton.layout import MEMBERS, OF_A_STEP, DecodeStep, LowRankOffsets, Workspace, power_of_2

WARPS = 1  # without others to wait for
CHUNK = 16  # pages that a warp scores at a time
STAGES = 2  # reads under way: where pages lie, and their summaries
COLUMNS = 8  # of a matrix product at least: where queries are fewer, each has several
SHARED_COLUMNS = 32  # of a bundle's matrix product at most: its sums stay in registers,
SHARED_BYTES = 8192  # and so do its queries
SCORE_PROGRAMS = 8  # times those that fill the GPU: each goes over chunks until the request's pages are scored
SHARED_PROGRAMS = 4  # the same, for bundles: each takes twice the registers


def score_pages(
    heads: Heads,
    step: DecodeStep,
    query: torch.Tensor,
    tiles: torch.Tensor,
    softmax: Softmax,
    work: Workspace,
    first: int,
    requests: int,
) -> None:
    """Fills `work.log_mass` for the requests from `first` on: the pages that a bundle shares, for all its members at
    once, and every request's others.

    query: [tokens, kv_heads × num_queries_per_kv, head_size]; tiles: int8 [blocks, kv_heads, bytes].
    """
    queries, head_size, page_size = heads.num_queries_per_kv, heads.head_size, heads.page_size
    offsets = LowRankOffsets.of(head_size, page_size)
    padded_queries, chunk = power_of_2(queries), WARPS * CHUNK
    chunks = pages(work.log_mass.shape[3], chunk)

    def launch(kernel: Any, rows: int, programs: int, **of_kernel: int) -> None:
        """rows: requests, or parts of bundles; programs: for each (row, KV head)."""
        kernel[(rows, heads.kv_heads, min(chunks, max(1, programs)))](
            query,
            tiles,
            tiles.view(torch.int32),
            tiles.view(torch.float32),
            tiles.view(torch.bfloat16),
            step.query_start,
            step.seq_lens,
            step.block_table,
            step.page_budget,
            step.bundles,
            step.shared_pages,
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
            COEFFICIENTS=offsets.coefficients // 4,
            THIRD_COEFFICIENT=offsets.third_coefficient // 4,
            SCALES=offsets.scales // 4,
            SELECTOR=heads.selector.name,
            SOFT_CAP=float(softmax.soft_cap),
            LOG_P=math.log(page_size),
            STAGES=STAGES,
            num_warps=WARPS,
            **dependent_launch(query.device),
            **of_kernel,
        )

    if requests > 1:
        columns = min(SHARED_COLUMNS, SHARED_BYTES // (power_of_2(head_size) * query.element_size()))
        together = max(1, min(MEMBERS, columns // padded_queries))
        parts = MEMBERS // together
        full = parts * pages(requests, MEMBERS)  # rows that have work, where all requests are of one prompt
        programs = SHARED_PROGRAMS * work.programs // (full * heads.kv_heads)
        launch(_score_shared, parts * (requests // 2), programs, PARTS=parts, TOGETHER=together)
    shares = max(1, min(COLUMNS // padded_queries, page_size // 4)) if heads.selector.name == "low_rank" else 1
    launch(_score, requests, SCORE_PROGRAMS * work.programs // (requests * heads.kv_heads), SHARES=shares)


@triton.jit(
    do_not_specialize=["first", "table_stride", "query_token", "query_head"],
    do_not_specialize_on_alignment=["query", *OF_A_STEP],
)
def _score(
    query,
    tiles,
    words,
    tiles32,
    tiles16,
    query_start,
    seq_lens,
    block_table,
    page_budget,
    bundles,
    shared_pages,
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
    SHARES: tl.constexpr,
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
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (request, KV head, share of the chunks of pages): the pages that no bundle scores."""
    await_kernel_before(PDL)
    in_wave, head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    begin, end = tl.load(shared_pages + request), tokens // P
    # A budget that covers all pages, or 0, needs no scores; and there may be fewer chunks than programs.
    if (budget * P >= tokens) | (budget == 0) | (begin + tl.program_id(2) * CHUNK >= end):
        return
    # Each query has SHARES columns, each for a share of a page's tokens.
    g = tl.arange(0, SHARES * G_PADDED) % G_PADDED
    asked = g < G
    token = tl.load(query_start + request).to(tl.int64)
    q_at = query + token * query_token + (head * G + g) * query_head
    out = log_mass + in_wave * mass_request + head * mass_head + g * mass_query
    blocks = block_table + request * table_stride
    # fmt: off
    estimate(q_at, asked, out,
             blocks, begin, end, tiles + head * tile_head,
              words + head * (tile_head // 4), tiles32 + head * (tile_head // 4), tiles16 + head * (tile_head // 2),
              tile_block, scale, SHARES, D, D_PADDED, P, PAGES, CHUNK, DIRECTIONS, THIRD_DIRECTION, COEFFICIENTS,
              THIRD_COEFFICIENT, SCALES, SELECTOR, SOFT_CAP, LOG_P, STAGES)
    # fmt: on


@triton.jit(
    do_not_specialize=["first", "table_stride", "query_token", "query_head"],
    do_not_specialize_on_alignment=["query", *OF_A_STEP],
)
def _score_shared(
    query,
    tiles,
    words,
    tiles32,
    tiles16,
    query_start,
    seq_lens,
    block_table,
    page_budget,
    bundles,
    shared_pages,
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
    PARTS: tl.constexpr,
    TOGETHER: tl.constexpr,
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
    STAGES: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (part of a bundle, KV head, share of the chunks of pages): the pages that its members share.

    Summaries are read, and their codes become numbers, once for the queries of TOGETHER requests.
    """
    await_kernel_before(PDL)
    row, head = tl.program_id(0), tl.program_id(1)
    members = bundles + (first + row // PARTS) * (PARTS * TOGETHER)
    leader = tl.load(members)
    if leader < 0:
        return
    column = tl.arange(0, TOGETHER * G_PADDED)
    g = column % G_PADDED
    request = tl.load(members + row % PARTS * TOGETHER + column // G_PADDED)
    budget, tokens = tl.load(page_budget + request, request >= 0, 0), tl.load(seq_lens + request, request >= 0, 0)
    asked = (g < G) & (budget * P < tokens)
    end = tl.load(shared_pages + leader)
    if (tl.max(asked.to(tl.int32)) == 0) | (tl.program_id(2) * CHUNK >= end):
        return
    token = tl.load(query_start + request, asked, 0).to(tl.int64)
    q_at = query + token * query_token + (head * G + g) * query_head
    out = log_mass + (request - first) * mass_request + head * mass_head + g * mass_query
    blocks = block_table + leader * table_stride
    # fmt: off
    estimate(q_at, asked, out,
             blocks, 0, end, tiles + head * tile_head,
              words + head * (tile_head // 4), tiles32 + head * (tile_head // 4), tiles16 + head * (tile_head // 2),
              tile_block, scale, 1, D, D_PADDED, P, PAGES, CHUNK, DIRECTIONS, THIRD_DIRECTION, COEFFICIENTS,
              THIRD_COEFFICIENT, SCALES, SELECTOR, SOFT_CAP, LOG_P, STAGES)
    # fmt: on
