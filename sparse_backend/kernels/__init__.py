"""Sparse decode attention on the KV cache: pure tensor functions, importable without vLLM.

Three operations: summary update, page selection, attention over the selected pages. `reference` defines what they
compute, in torch, for any selector; `native` is the CPU implementation. Every implementation offers what `Kernels`
lists.
"""

from __future__ import annotations

import logging
from typing import Protocol

import torch

from sparse_backend.kernels.batch import DecodeBatch, Heads, Softmax
from sparse_backend.selection import Selector

logger = logging.getLogger(__name__)


class Kernels(Protocol):
    def check(self, heads: Heads) -> None:
        """Raises ValueError if these kernels cannot serve such heads, and says why."""

    def update_summaries(
        self,
        heads: Heads,
        batch: DecodeBatch,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        requests: torch.Tensor,
        starts: torch.Tensor,
    ) -> None:
        """Summarises the pages completed by the tokens from `starts` on, of `requests` of the batch (both int32).

        cache: [pages, kv_heads, page_size, 2 × head_size]; tiles: uint8 [blocks, kv_heads, bytes], written.
        """

    def select_pages(
        self, heads: Heads, batch: DecodeBatch, query: torch.Tensor, tiles: torch.Tensor, softmax: Softmax
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
        softmax: Softmax,
    ) -> None:
        """Selection and attention. query, output: [tokens, kv_heads × num_queries_per_kv, head_size]; output is
        written."""


def cpu_kernels(selector: Selector) -> Kernels:
    """The compiled kernels; with a warning the torch reference, where they cannot be compiled or lack the selector."""
    from sparse_backend.kernels import native, reference

    try:
        if type(selector) in native.SELECTORS:
            return native.NativeKernels(native.load())
        reason = f"there is no compiled one for the selector {selector.name}."
    except native.BuildError as error:
        reason = str(error)
    logger.warning("Sparse attention runs on its slow torch reference: %s", reason)
    return reference.ReferenceKernels()


__all__ = ["DecodeBatch", "Heads", "Kernels", "Softmax", "cpu_kernels"]
