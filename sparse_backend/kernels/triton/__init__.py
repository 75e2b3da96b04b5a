"""Sparse decode attention in Triton, for CUDA: the three operations, each with fixed launch grids and no host sync.

Launches depend on the batch size, `max_query_len` and the capacities of the workspace alone, so a CUDA graph can
record them. `TRITON_INTERPRET=1` runs them on CPU tensors.
"""

from __future__ import annotations

import torch

from sparse_backend.constants import BLOCK
from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.attention import attend
from sparse_backend.kernels.triton.bundles import bundle_requests
from sparse_backend.kernels.triton.layout import (
    MAX_WAVE,
    MEMBERS,
    SELECTORS,
    DecodeStep,
    Workspace,
    split_blocks,
    tile_bytes,
    tile_bytes_per_token,
)
from sparse_backend.kernels.triton.plan import plan_step
from sparse_backend.kernels.triton.scoring import score_pages
from sparse_backend.kernels.triton.selection import choose_pages
from sparse_backend.kernels.triton.summaries import update_summaries


def decode(
    heads: Heads,
    step: DecodeStep,
    query: torch.Tensor,
    cache: torch.Tensor,
    tiles: torch.Tensor,
    output: torch.Tensor,
    softmax: Softmax,
    work: Workspace,
) -> None:
    """Selection and attention of one layer. See `score_pages`, `choose_pages` and `attend`."""
    for first, requests in work.waves(step.seq_lens.shape[0]):
        score_pages(heads, step, query, tiles, softmax, work, first, requests)
        choose_pages(heads, step, softmax, work, first, requests)
        attend(heads, step, query, cache, tiles, output, softmax, work, first, requests)


def warm_up(heads: Heads, softmax: Softmax, work: Workspace) -> None:
    """Compiles whatever later steps launch, by one in which there is nothing to do."""
    device = work.counts.device
    width = 2 * heads.head_size + tile_bytes_per_token(heads) // heads.dtype.itemsize
    cache, tiles = split_blocks(torch.zeros(1, heads.kv_heads, BLOCK, width, dtype=heads.dtype, device=device), heads)

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=device)

    # Two requests, since one alone shares nothing.
    step = DecodeStep(zeros(3), zeros(2), zeros(2, 1), zeros(2), zeros(2, MEMBERS), zeros(2))
    query = torch.zeros(2, heads.kv_heads * heads.num_queries_per_kv, heads.head_size, dtype=heads.dtype, device=device)
    bundle_requests(step, zeros(2, MAX_WAVE), heads.page_size)
    update_summaries(heads, step, cache, tiles, 1)
    decode(heads, step, query, cache, tiles, torch.zeros_like(query), softmax, work)


__all__ = [
    "MAX_WAVE",
    "MEMBERS",
    "SELECTORS",
    "DecodeStep",
    "Workspace",
    "attend",
    "bundle_requests",
    "choose_pages",
    "decode",
    "plan_step",
    "score_pages",
    "split_blocks",
    "tile_bytes",
    "tile_bytes_per_token",
    "update_summaries",
    "warm_up",
]
