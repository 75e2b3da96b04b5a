"""Bounding box of each page's keys (Quest, arXiv 2406.10774), softmax over pages summed over query heads."""

from __future__ import annotations

import torch

from sparse_backend.selection.base import Selector, as_bytes, deinterleave, interleave, pages_of_tile


class Quest(Selector):
    name = "quest"

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        return 4 * head_size * pages_of_tile(page_size)

    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        box = torch.cat([interleave(keys.amin(-2)), interleave(keys.amax(-2))], -1)
        return as_bytes(box.bfloat16())

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        low, high = tiles.view(torch.bfloat16).float().chunk(2, -1)
        pages = pages_of_tile(page_size)
        low, high = (deinterleave(x, pages).flatten(0, 1) for x in (low, high))
        return query.clamp(min=0) @ high.T + query.clamp(max=0) @ low.T
