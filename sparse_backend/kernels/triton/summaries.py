"""Summary update: the summaries of pages that this step's tokens completed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparse_backend.constants import BLOCK, POWER_ITERATIONS
from sparse_backend.kernels.batch import Heads
from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch
from sparse_backend.kernels.triton.dot import dot
from sparse_backend.kernels.triton.layout import DecodeStep, LowRankOffsets, power_of_2
from sparse_backend.kernels.triton.nibbles import pack, pack_neighbours
from sparse_backend.selection.low_rank import TINY, means_of_block

# Numbers that a warp holds in registers, of a page's keys, and of the products of its keys with each other: the fewer
# warps, the less they wait for each other.
NUMBERS = 2048
PRODUCTS = 256
TINY = tl.constexpr(TINY)
POWER_ITERATIONS = tl.constexpr(POWER_ITERATIONS)
ROUND = tl.constexpr(12582912.0)  # 1.5 × 2²³: adding and subtracting it rounds a float32 to the nearest integer


def update_summaries(
    heads: Heads, step: DecodeStep, cache: torch.Tensor, tiles: torch.Tensor, max_query_len: int
) -> None:
    """Summarises every page that became complete in this step, of every request.

    cache: [blocks, kv_heads, BLOCK, 2 × head_size]; tiles: int8 [blocks, kv_heads, bytes], written;
    max_query_len: the most tokens that a request brings in this step.
    """
    requests = step.seq_lens.shape[0]
    blocks = 1 if max_query_len == 1 else (max_query_len - 1) // BLOCK + 2
    offsets = LowRankOffsets.of(heads.head_size, heads.page_size)
    tokens = max(16, heads.page_size)  # matrix products have 16 rows at least
    _update[(requests, blocks, heads.kv_heads)](
        cache,
        tiles,
        tiles.view(torch.float32),
        tiles.view(torch.bfloat16),
        step.query_start,
        step.seq_lens,
        step.block_table,
        step.block_table.stride(0),
        *cache.stride()[:3],
        *tiles.stride()[:2],
        D=heads.head_size,
        D_PADDED=power_of_2(heads.head_size),
        P=heads.page_size,
        P_PADDED=tokens,
        PAGES=heads.pages_of_tile,
        PAGES_OF_MEAN=heads.pages_of_tile // means_of_block(heads.page_size),
        DIRECTIONS=offsets.directions,
        THIRD_DIRECTION=offsets.third_direction,
        COEFFICIENTS=offsets.coefficients,
        THIRD_COEFFICIENT=offsets.third_coefficient,
        SCALES=offsets.scales // 4,
        MEAN_VALUES=offsets.mean_values,
        VALUE_SCALES=offsets.value_scales // 4,
        SELECTOR=heads.selector.name,
        num_warps=max(1, tokens * power_of_2(heads.head_size) // NUMBERS, tokens * tokens // PRODUCTS),
        **dependent_launch(cache.device),
    )


@triton.jit(
    do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["query_start", "seq_lens", "block_table"]
)
def _update(
    cache,
    tiles,
    tiles32,
    tiles16,
    query_start,
    seq_lens,
    block_table,
    table_stride,
    cache_block,
    cache_head,
    cache_token,
    tile_block,
    tile_head,
    D: tl.constexpr,
    D_PADDED: tl.constexpr,
    P: tl.constexpr,
    P_PADDED: tl.constexpr,
    PAGES: tl.constexpr,
    PAGES_OF_MEAN: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    THIRD_DIRECTION: tl.constexpr,
    COEFFICIENTS: tl.constexpr,
    THIRD_COEFFICIENT: tl.constexpr,
    SCALES: tl.constexpr,
    MEAN_VALUES: tl.constexpr,
    VALUE_SCALES: tl.constexpr,
    SELECTOR: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per (request, touched block, KV head)."""
    await_kernel_before(PDL)
    request, head = tl.program_id(0), tl.program_id(2)
    tokens = tl.load(seq_lens + request)
    start = tokens - (tl.load(query_start + request + 1) - tl.load(query_start + request))
    complete, first = tokens // P, start // P  # pages; those in between are new
    block = first // PAGES + tl.program_id(1)
    if (complete <= first) | (block * PAGES >= complete):
        return
    physical = tl.load(block_table + request * table_stride + block).to(tl.int64)
    base = cache + physical * cache_block + head * cache_head
    tile = physical * tile_block + head * tile_head  # bytes
    d, t = tl.arange(0, D_PADDED), tl.arange(0, P_PADDED)
    half_d, half_t = tl.arange(0, D_PADDED // 2), tl.arange(0, P_PADDED // 2)
    real = (t[:, None] < P) & (d[None, :] < D)
    in_block = tl.minimum(complete - block * PAGES, PAGES)  # complete pages of this block
    new = tl.maximum(first - block * PAGES, 0)  # the first new one
    for mean_of in range(new // PAGES_OF_MEAN, tl.cdiv(in_block, PAGES_OF_MEAN)):
        begin, end = mean_of * PAGES_OF_MEAN, tl.minimum((mean_of + 1) * PAGES_OF_MEAN, in_block)
        value_sum = tl.zeros([D_PADDED], tl.float32)
        for page in range(begin, end):
            slots = base + (page * P + t[:, None]) * cache_token + d[None, :]
            if SELECTOR == "low_rank":
                value_sum += tl.sum(tl.load(slots + D, real, 0.0).to(tl.float32), 0)
            if page >= new:
                keys = tl.load(slots, real, 0.0).to(tl.float32)
                at = page * D + d
                if SELECTOR == "block_mean":
                    mean = tl.sum(keys, 0) / P
                    tl.store(tiles16 + tile // 2 + at, mean.to(tl.bfloat16), d < D)
                elif SELECTOR == "quest":
                    low = tl.min(tl.where(real, keys, float("inf")), 0)
                    high = tl.max(tl.where(real, keys, float("-inf")), 0)
                    tl.store(tiles16 + tile // 2 + at, low.to(tl.bfloat16), d < D)
                    tl.store(tiles16 + tile // 2 + PAGES * D + at, high.to(tl.bfloat16), d < D)
                else:
                    mean, mean_scale = _quantise(tl.sum(keys, 0) / P, 127)
                    rest = tl.where(real, keys - (mean * mean_scale)[None, :], 0.0)
                    gram = dot(rest, tl.trans(rest))
                    direction0, coefficient0, scale0, rest, gram = _direction(rest, gram)
                    direction1, coefficient1, scale1, rest, gram = _direction(rest, gram)
                    direction2, coefficient2, scale2, rest, gram = _direction(rest, gram)
                    codes = tiles + tile
                    tl.store(codes + at, mean.to(tl.int8), d < D)
                    tl.store(codes + DIRECTIONS + at, pack(direction0, direction1), d < D)
                    third = codes + THIRD_DIRECTION + page * (D // 2) + half_d
                    tl.store(third, pack_neighbours(direction2), half_d < D // 2)
                    tl.store(codes + COEFFICIENTS + page * P + t, pack(coefficient0, coefficient1), t < P)
                    third = codes + THIRD_COEFFICIENT + page * (P // 2) + half_t
                    tl.store(third, pack_neighbours(coefficient2), half_t < P // 2)
                    scales = tiles32 + tile // 4 + SCALES + page
                    tl.store(scales, mean_scale)
                    tl.store(scales + PAGES, scale0)
                    tl.store(scales + 2 * PAGES, scale1)
                    tl.store(scales + 3 * PAGES, scale2)
        if SELECTOR == "low_rank":
            mean_value, value_scale = _quantise(value_sum / ((end - begin) * P).to(tl.float32), 7)
            at = tiles + tile + MEAN_VALUES + mean_of * (D // 2) + half_d
            tl.store(at, pack_neighbours(mean_value), half_d < D // 2)
            tl.store(tiles32 + tile // 4 + VALUE_SCALES + mean_of, value_scale)


@triton.jit
def _quantise(x, LIMIT: tl.constexpr):
    """Integers in [-LIMIT, LIMIT], as floats, and the scale that restores x."""
    top = tl.maximum(tl.max(tl.abs(x)), TINY)
    codes = (x * (LIMIT / top) + ROUND) - ROUND
    return tl.minimum(tl.maximum(codes, -LIMIT), LIMIT), top / LIMIT


@triton.jit
def _direction(rest, gram):
    """The direction in which rest [tokens, head_size] spreads most, as codes, and each token's coefficient on it; then
    what rest and its Gram matrix are without it."""
    token = tl.arange(0, rest.shape[0])
    diagonal = tl.sum(tl.where(token[:, None] == token[None, :], gram, 0.0), 0)
    # With a trace of 1, float32 has room for its powers, and nothing need be normalised on the way.
    matrix = gram / tl.maximum(tl.sum(diagonal), TINY)
    u = tl.sum(tl.where(token[:, None] == tl.argmax(diagonal, 0), matrix, 0.0), 0)
    for _ in range(POWER_ITERATIONS // 2):  # a symmetric matrix: from rows to columns and back, nothing changes place
        u = tl.sum(matrix * u[None, :], 1)
        u = tl.sum(matrix * u[:, None], 0)
    u = u / tl.maximum(tl.max(tl.abs(u)), 1e-35)
    codes, _scale = _quantise(tl.sum(rest * u[:, None], 0), 7)
    # By least squares on the direction as stored.
    along, size = tl.sum(rest * codes[None, :], 1), tl.sum(codes * codes)
    coefficients, scale = _quantise(along / (size + TINY), 7)
    taken = coefficients * scale
    rest -= taken[:, None] * codes[None, :]
    along -= 0.5 * size * taken
    gram -= taken[:, None] * along[None, :] + along[:, None] * taken[None, :]
    return codes, coefficients, scale, rest, gram
