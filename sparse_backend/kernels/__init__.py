"""Sparse decode attention on the KV cache: pure tensor functions, importable without vLLM.

Three operations: summary update, page selection, attention over the selected pages. `reference` defines what they
compute, in torch; `native` is the CPU implementation. Every implementation offers what `Kernels` lists.
"""

from __future__ import annotations

import functools
import logging
from typing import Protocol

import torch

from sparse_backend.kernels.batch import DecodeBatch, Heads

logger = logging.getLogger(__name__)


class Kernels(Protocol):
    def update_summaries(
        self,
        heads: Heads,
        batch: DecodeBatch,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        rows: torch.Tensor,
        starts: torch.Tensor,
    ) -> None:
        """Summarises the pages completed by the tokens from `starts` on, of batch rows `rows` (both int32).

        cache: [pages, kv_heads, page_size, 2 × head_size]; tiles: uint8 [blocks, kv_heads, bytes], written.
        """

    def select_pages(
        self, heads: Heads, batch: DecodeBatch, query: torch.Tensor, tiles: torch.Tensor, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns int32 logical page numbers [requests, kv_heads, pages], ascending, and how many of them count."""

    def decode(
        self,
        heads: Heads,
        batch: DecodeBatch,
        query: torch.Tensor,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        output: torch.Tensor,
        scale: float,
    ) -> None:
        """Selection and attention. query, output: [tokens, kv_heads × group, head_size]; output is written."""


@functools.cache
def cpu_kernels() -> Kernels:
    """The compiled kernels, or the torch reference with one warning where they cannot be compiled."""
    from sparse_backend.kernels import native, reference

    try:
        return native.NativeKernels(native.load())
    except native.BuildError as error:
        logger.warning("Sparse attention runs on its slow torch reference: %s", error)
        return reference.ReferenceKernels()


__all__ = ["DecodeBatch", "Heads", "Kernels", "cpu_kernels"]
