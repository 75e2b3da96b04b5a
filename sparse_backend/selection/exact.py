"""Exact token-level top-k: the paper's oracle. It reads every key."""

from __future__ import annotations

import torch

from sparse_backend.selection.base import Selector


class Exact(Selector):
    """Every page's keys are read; the values of the `kv_budget` heaviest tokens. For quality, not for speed."""

    name = "exact"

    def key_tokens(self, budget: int, page_size: int) -> int:
        return 2**30 // page_size * page_size

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        return 0

    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return torch.empty(*keys.shape[:-3], 0, dtype=torch.uint8)

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        raise NotImplementedError("exact reads every page and scores none")
