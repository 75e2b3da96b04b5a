"""Mean key of each page, averaged over the query heads of a KV head: the block top-k of Kinetics (arXiv 2506.05333)."""

from __future__ import annotations

import torch

from sparse_backend.selection.base import Selector, as_bytes, deinterleave, interleave, pages_of_tile


class BlockMean(Selector):
    name = "block_mean"

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        return 2 * head_size * pages_of_tile(page_size)

    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return as_bytes(interleave(keys.mean(-2)).bfloat16())

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        mean = deinterleave(tiles.view(torch.bfloat16).float(), pages_of_tile(page_size)).flatten(0, 1)
        return query @ mean.T

    def page_scores(self, log_mass: torch.Tensor) -> torch.Tensor:
        return log_mass.sum(0)
