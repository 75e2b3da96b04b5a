"""Sparse decode attention in Triton, for CUDA: the three operations, each with fixed launch grids and no host sync.

Launches depend on the batch size, `max_query_len` and the capacities of the workspace alone, so a CUDA graph can
record them. `TRITON_INTERPRET=1` runs them on CPU tensors.
"""

from __future__ import annotations

import torch

from sparse_backend.kernels.batch import Heads, Softmax
from sparse_backend.kernels.triton.attention import attend
from sparse_backend.kernels.triton.layout import (
    SELECTORS,
    DecodeStep,
    Workspace,
    split_blocks,
    tile_bytes,
    tile_bytes_per_token,
)
from sparse_backend.kernels.triton.selection import select_pages
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
    """Selection and attention of one layer. See `select_pages` and `attend`."""
    for first, requests in work.waves(step.seq_lens.shape[0]):
        select_pages(heads, step, query, tiles, softmax, work, first, requests)
        attend(heads, step, query, cache, tiles, output, softmax, work, first, requests)


__all__ = [
    "SELECTORS",
    "DecodeStep",
    "Workspace",
    "attend",
    "decode",
    "select_pages",
    "split_blocks",
    "tile_bytes",
    "tile_bytes_per_token",
    "update_summaries",
]
