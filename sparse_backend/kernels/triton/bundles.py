"""Which requests of a step have their first pages in common, as samples of one prompt do: those are scored together.

Decided once a step, for all layers, on the GPU: samples share the KV blocks of their prompt, so block tables tell.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sparse_backend.constants import BLOCK
from sparse_backend.kernels.triton.dependent_launch import await_kernel_before, dependent_launch
from sparse_backend.kernels.triton.layout import MEMBERS, OF_A_STEP, DecodeStep

BLOCKS = 64  # of each request's table, that a program compares at a time
# A request joins others with which it has at least NEAR quarters of what it has with any, and they with any. So two
# prompts behind one system prompt are two groups, and the branches of a tree that forks again and again are one.
NEAR = tl.constexpr(3)
NONE = tl.constexpr(1 << 30)


def bundle_requests(step: DecodeStep, common: torch.Tensor, page_size: int) -> None:
    """Fills `step.bundles` and `step.shared_pages`, which are 0 before; one request alone shares nothing.

    common: scratch memory, int32 [at least batch, MAX_WAVE]. A bundle lies within one wave, which is that of the
    workspace also where it is smaller than MAX_WAVE: then there are never more requests than it has room for.
    """
    batch, wave = len(step.seq_lens), common.shape[1]
    if batch == 1:
        return
    _compare[(batch,)](
        step.seq_lens,
        step.block_table,
        step.page_budget,
        common,
        batch,
        step.block_table.stride(0),
        TOKENS=BLOCK,
        WAVE=wave,
        BLOCKS=BLOCKS,
        num_warps=8,
        **dependent_launch(common.device),
    )
    _bundle[(triton.cdiv(batch, wave),)](
        common,
        step.bundles,
        step.shared_pages,
        batch,
        PAGES=BLOCK // page_size,
        WAVE=wave,
        MEMBERS=MEMBERS,
        num_warps=8,
        **dependent_launch(common.device),
    )


@triton.jit(do_not_specialize=["batch", "table_stride"], do_not_specialize_on_alignment=OF_A_STEP)
def _compare(
    seq_lens,
    block_table,
    page_budget,
    common,
    batch,
    table_stride,
    TOKENS: tl.constexpr,
    WAVE: tl.constexpr,
    BLOCKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per request: with how many complete blocks each request of its wave begins as it does. Only sparse
    requests have any in common."""
    await_kernel_before(PDL)
    request = tl.program_id(0)
    other = request // WAVE * WAVE + tl.arange(0, WAVE)
    sparse = tl.load(page_budget + other, other < batch, 0) > 0
    own = tl.where(tl.load(page_budget + request) > 0, tl.load(seq_lens + request) // TOKENS, 0)
    alike = tl.minimum(tl.load(seq_lens + other, sparse & (other != request), 0) // TOKENS, own)
    table, begin = block_table + request * table_stride, 0
    while tl.max(alike) > begin:
        block = begin + tl.arange(0, BLOCKS)
        compared = block[None, :] < alike[:, None]
        theirs = tl.load(block_table + other[:, None] * table_stride + block[None, :], compared, 0)
        differs = compared & (theirs != tl.load(table + block, block < own, 0)[None, :])
        alike = tl.minimum(alike, tl.min(tl.where(differs, block[None, :], own), 1))
        begin += BLOCKS
    tl.store(common + request * WAVE + tl.arange(0, WAVE), alike)


@triton.jit(do_not_specialize=["batch"], do_not_specialize_on_alignment=OF_A_STEP)
def _bundle(
    common,
    bundles,
    shared_pages,
    batch,
    PAGES: tl.constexpr,
    WAVE: tl.constexpr,
    MEMBERS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One program per wave: makes groups of requests that are near each other, and bundles of groups."""
    await_kernel_before(PDL)
    first, request = tl.program_id(0) * WAVE, tl.arange(0, WAVE)
    row, other = request[:, None], request[None, :]
    real = first + request < batch
    alike = tl.load(common + (first + row) * WAVE + other, real[:, None], 0)
    longest = tl.max(alike, 1)
    near = (alike > 0) & (4 * alike >= NEAR * tl.maximum(longest[:, None], longest[None, :]))
    # The first of those near a request leads it, unless that one is led itself.
    leader = tl.min(tl.where(near, other, row), 1)
    joins = tl.gather(leader, leader, 0) == leader
    group = (leader[:, None] == leader[None, :]) & joins[:, None] & joins[None, :]
    size, place = tl.sum(group.to(tl.int32), 1), tl.sum((group & (other < row)).to(tl.int32), 1)
    # Members are dealt out like cards, so that the bundles of a group are equal but for one.
    count = tl.maximum(tl.cdiv(size, MEMBERS), 1)
    deal = place % count
    partner = group & (deal[:, None] == deal[None, :]) & (other != row)
    fewest = tl.min(tl.where(partner, alike, NONE), 1)
    bundled = fewest < NONE
    tl.store(shared_pages + first + request, tl.where(bundled, fewest * PAGES, 0), real)
    # Bundles are numbered by their first members.
    opens = bundled & (place < count)
    opener = tl.min(tl.where(partner | (other == row), other, WAVE), 1)
    number = tl.sum((opens[None, :] & (other < opener[:, None])).to(tl.int32), 1)
    members = bundles + first * MEMBERS
    tl.store(
        members + row * MEMBERS + tl.arange(0, MEMBERS)[None, :], tl.full([WAVE, MEMBERS], -1, tl.int32), real[:, None]
    )
    tl.debug_barrier()  # no row is cleared after it is filled
    tl.store(members + number * MEMBERS + place // count, first + request, bundled)
