"""Page scores: the mass that each query head puts on each page, estimated from the page's summary."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dot import INTERPRETED, capped, dot
from sparse_backend.kernels.triton.layout import MEMBERS, OF_A_STEP, DecodeStep, LowRankOffsets, Workspace, power_of_2
from sparse_backend.kernels.triton.nibbles import BIAS, CODE_BIAS, code, codes_for_dot

WARPS = 1  # without others to wait for
CHUNK = 16  # pages that a warp scores at a time
STAGES = 2  # reads under way: where pages lie, and their summaries
COLUMNS = 8  # of a matrix product at least: where queries are fewer, each has several
SHARED_COLUMNS = 32  # of a bundle's matrix product at most: its sums stay in registers,
SHARED_BYTES = 8192  # and so do its queries
SCORE_PROGRAMS = 8  # times those that fill the GPU: each goes over chunks until the request's pages are scored
SHARED_PROGRAMS = 4  # the same, for bundles: each takes twice the registers
LOG2_E = tl.constexpr(math.log2(math.e))
LOG_2 = tl.constexpr(math.log(2))


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
):
    """One program per (request, KV head, share of the chunks of pages): the pages that no bundle scores."""
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
    _estimate(q_at, asked, out,
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
):
    """One program per (part of a bundle, KV head, share of the chunks of pages): the pages that its members share.

    Summaries are read, and their codes become numbers, once for the queries of TOGETHER requests.
    """
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
    _estimate(q_at, asked, out,
              blocks, 0, end, tiles + head * tile_head,
              words + head * (tile_head // 4), tiles32 + head * (tile_head // 4), tiles16 + head * (tile_head // 2),
              tile_block, scale, 1, D, D_PADDED, P, PAGES, CHUNK, DIRECTIONS, THIRD_DIRECTION, COEFFICIENTS,
              THIRD_COEFFICIENT, SCALES, SELECTOR, SOFT_CAP, LOG_P, STAGES)
    # fmt: on


@triton.jit
def _estimate(
    q_at,
    asked,
    out,
    blocks,
    begin,
    end,
    tiles,
    words,
    tiles32,
    tiles16,
    tile_block,
    scale,
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
):
    """Estimates log Σ e^logit of the pages from `begin` to `end`, for each query.

    Also of pages that are read anyway, since scores are shares of the whole. q_at, asked and out, [columns]: where each
    query lies, whether it is one, and where its masses go. blocks: where the request's block table begins.
    """
    COLUMNS: tl.constexpr = asked.shape[0]
    QUERIES: tl.constexpr = COLUMNS // SHARES
    d, half_d, column = tl.arange(0, D_PADDED), tl.arange(0, D_PADDED // 2), tl.arange(0, COLUMNS)
    share = column // QUERIES
    rows = tl.load(q_at[:, None] + d[None, :], asked[:, None] & (d[None, :] < D), 0.0)  # [columns, head_size]
    q = tl.trans(rows)
    if SELECTOR == "low_rank":
        # The third direction's even dimensions are in the low halves of its bytes, the odd ones in the high halves.
        even, odd = tl.split(tl.reshape(rows, [COLUMNS, D_PADDED // 2, 2]))
        even, odd = tl.trans(even), tl.trans(odd)
        bias = tl.sum(q.to(tl.float32), 0) * BIAS(q.dtype)
    for chunk in tl.range(begin + tl.program_id(2) * CHUNK, end, tl.num_programs(2) * CHUNK, num_stages=STAGES):
        page = chunk + tl.arange(0, CHUNK)
        scored = page < end
        block = tl.load(blocks + page // PAGES, scored, 0).to(tl.int64)
        slot = page % PAGES
        tile = block * tile_block
        wide = scored[:, None] & (d[None, :] < D)
        at = (tile + slot * D)[:, None] + d[None, :]
        if SELECTOR == "low_rank":
            mean = tl.load(tiles + at, wide, 0).to(tl.float32).to(q.dtype)
            pair = tl.load(tiles + DIRECTIONS + at, wide, 0)
            at = (tile + slot * (D // 2))[:, None] + half_d[None, :]
            third = tl.load(tiles + THIRD_DIRECTION + at, scored[:, None] & (half_d[None, :] < D // 2), 0)
            scales = tiles32 + tile // 4 + SCALES + slot
            # In powers of 2, for which GPUs have an instruction.
            to_2 = scale * LOG2_E
            base = dot(mean, q) * (tl.load(scales, scored, 0.0) * to_2)[:, None]
            slope0 = dot(codes_for_dot(pair, 0, q.dtype), q) - bias[None, :]
            slope1 = dot(codes_for_dot(pair, 4, q.dtype), q) - bias[None, :]
            slope2 = dot(codes_for_dot(third, 0, q.dtype), even) + dot(codes_for_dot(third, 4, q.dtype), odd)
            slope2 -= bias[None, :]
            slope0 *= (tl.load(scales + PAGES, scored, 0.0) * to_2)[:, None]
            slope1 *= (tl.load(scales + 2 * PAGES, scored, 0.0) * to_2)[:, None]
            slope2 *= (tl.load(scales + 3 * PAGES, scored, 0.0) * to_2)[:, None]
            # Instead of the largest logit, which would take a pass of its own: it lies between the mean, about, and the
            # mean plus 7 for each slope, so their middle is off by half of that at most, for which exp2 has room.
            middle = 3.5 * (tl.abs(slope0) + tl.abs(slope1) + tl.abs(slope2))
            offset = -CODE_BIAS * (slope0 + slope1 + slope2) - middle
            pairs = words + tile // 4 + COEFFICIENTS + slot * (P // 4)
            thirds = words + tile // 4 + THIRD_COEFFICIENT + slot * (P // 8)
            total = tl.zeros([CHUNK, COLUMNS], tl.float32)
            for word in tl.static_range(P // 4 // SHARES):  # of each share's tokens, four
                if SHARES == 1:
                    both = tl.load(pairs + word, scored, 0)[:, None]
                    third = (tl.load(thirds + word // 2, scored, 0) >> (16 * (word % 2)))[:, None]
                else:
                    both = tl.zeros([CHUNK, COLUMNS], tl.int32)
                    third = tl.zeros([CHUNK, COLUMNS], tl.int32)
                    for i in tl.static_range(SHARES):
                        at_word = i * (P // 4 // SHARES) + word
                        mine = share[None, :] == i
                        both = tl.where(mine, tl.load(pairs + at_word, scored, 0)[:, None], both)
                        codes = tl.load(thirds + at_word // 2, scored, 0) >> (16 * (at_word % 2))
                        third = tl.where(mine, codes[:, None], third)
                low, high = both & 0x0F0F0F0F, (both >> 4) & 0x0F0F0F0F
                third_low, third_high = third & 0x0F0F, (third >> 4) & 0x0F0F
                for i in tl.static_range(4):
                    power = slope0 * code(low, i) + offset
                    power += slope1 * code(high, i)
                    power += slope2 * code(third_high if i % 2 else third_low, i // 2)
                    total += tl.exp2(power)
            if SHARES > 1:
                total = tl.sum(tl.reshape(total, [CHUNK, SHARES, QUERIES]), 1)[:, None, :]
                total = tl.reshape(tl.broadcast_to(total, [CHUNK, SHARES, QUERIES]), [CHUNK, COLUMNS])
            # Where a page spreads further than float32 reaches, this is still a mass, if not quite its own.
            total = tl.minimum(tl.maximum(total, 1e-37), 3e38)
            mass = (base + middle + _log2(total)) * LOG_2
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
        tl.store(out[None, :] + page[:, None], mass, scored[:, None] & (asked & (column < QUERIES))[None, :])


@triton.jit
def _log2(x):
    """The GPU's own instruction, where `tl.log2` takes two dozen; for numbers that are not denormal."""
    if INTERPRETED:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise("lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
