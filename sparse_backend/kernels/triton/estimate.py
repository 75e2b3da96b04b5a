"""The mass that each query puts on each page, estimated from the page's summary."""

from __future__ import annotations

import math

import triton
import triton.language as tl

from sparse_backend.kernels.triton.dot import INTERPRETED, capped, dot
from sparse_backend.kernels.triton.nibbles import BIAS, CODE_BIAS, code, codes_for_dot

LOG2_E = tl.constexpr(math.log2(math.e))
LOG_2 = tl.constexpr(math.log(2))


@triton.jit
def estimate(
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
