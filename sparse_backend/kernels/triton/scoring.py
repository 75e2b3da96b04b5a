"""Page scores: the mass that each query head puts on each page, estimated from the page's summary."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from sparse_backend.constants import pages
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.dot import capped, dot
from sparse_backend.kernels.triton.layout import OF_A_STEP, DecodeStep, LowRankOffsets, Workspace, power_of_2
from sparse_backend.kernels.triton.nibbles import BIAS, CODE_BIAS, code, codes_for_dot

WARPS = 1  # without others to wait for
CHUNK = 16  # pages that a warp scores at a time
STAGES = 2  # reads under way: where pages lie, and their summaries
COLUMNS = 8  # of a matrix product at least: where queries are fewer, each has several
SCORE_PROGRAMS = 8  # times those that fill the GPU: each goes over chunks until the request's pages are scored
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
    """Fills `work.log_mass` for the requests from `first` on.

    query: [tokens, kv_heads × num_queries_per_kv, head_size]; tiles: int8 [blocks, kv_heads, bytes].
    """
    queries, head_size, page_size = heads.num_queries_per_kv, heads.head_size, heads.page_size
    offsets = LowRankOffsets.of(head_size, page_size)
    padded_queries, capacity = power_of_2(queries), work.log_mass.shape[3]
    shares = max(1, min(COLUMNS // padded_queries, page_size // 4)) if heads.selector.name == "low_rank" else 1
    chunk = WARPS * CHUNK
    programs = max(1, SCORE_PROGRAMS * work.programs // (requests * heads.kv_heads))
    _score[(requests, heads.kv_heads, min(pages(capacity, chunk), programs))](
        query,
        tiles,
        tiles.view(torch.int32),
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
        SHARES=shares,
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
    )


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
    """One program per (request, KV head, share of the chunks of pages): estimates log Σ e^logit of complete pages, by
    query head.

    Also of pages that are read anyway, since scores are shares of the whole.
    """
    in_wave, head = tl.program_id(0), tl.program_id(1)
    request = first + in_wave
    budget, tokens = tl.load(page_budget + request), tl.load(seq_lens + request)
    # A budget that covers all pages, or 0, needs no scores.
    if (budget * P >= tokens) | (budget == 0):
        return
    complete = tokens // P
    d, half_d = tl.arange(0, D_PADDED), tl.arange(0, D_PADDED // 2)
    # Each query has SHARES columns, each for a share of a page's tokens.
    column = tl.arange(0, SHARES * G_PADDED)
    g, share = column % G_PADDED, column // G_PADDED
    token = tl.load(query_start + request).to(tl.int64)
    q_at = query + token * query_token + (head * G + g[None, :]) * query_head
    q = tl.load(q_at + d[:, None], (g[None, :] < G) & (d[:, None] < D), 0.0)  # [head_size, columns]
    if SELECTOR == "low_rank":
        # The third direction's even dimensions are in the low halves of its bytes, the odd ones in the high halves.
        pair_real = (g[None, :] < G) & (half_d[:, None] < D // 2)
        even = tl.load(q_at + 2 * half_d[:, None], pair_real, 0.0)
        odd = tl.load(q_at + 2 * half_d[:, None] + 1, pair_real, 0.0)
        bias = tl.sum(q.to(tl.float32), 0) * BIAS(q.dtype)
    for begin in tl.range(tl.program_id(2) * CHUNK, complete, tl.num_programs(2) * CHUNK, num_stages=STAGES):
        page = begin + tl.arange(0, CHUNK)
        scored = page < complete
        block = tl.load(block_table + request * table_stride + page // PAGES, scored, 0).to(tl.int64)
        slot = page % PAGES
        tile = block * tile_block + head * tile_head
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
            total = tl.zeros([CHUNK, SHARES * G_PADDED], tl.float32)
            for word in tl.static_range(P // 4 // SHARES):  # of each share's tokens, four
                both = tl.zeros([CHUNK, SHARES * G_PADDED], tl.int32)
                third = tl.zeros([CHUNK, SHARES * G_PADDED], tl.int32)
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
                total = tl.sum(tl.reshape(total, [CHUNK, SHARES, G_PADDED]), 1)[:, None, :]
                total = tl.reshape(tl.broadcast_to(total, [CHUNK, SHARES, G_PADDED]), [CHUNK, SHARES * G_PADDED])
            # Where a page spreads further than float32 reaches, this is still a mass, if not quite its own.
            total = tl.minimum(tl.maximum(total, 1e-37), 3e38)
            mass = (base + middle + tl.log2(total)) * LOG_2
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
        tl.store(out, mass, scored[:, None] & (column[None, :] < G))
