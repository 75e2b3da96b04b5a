"""A selector of one's own, in plain torch: `{"sparse_attention": {"kv_budget": 1024, "selector": "largest_key"}}`."""

import torch

from sparse_backend.selection import Selector, pages_of_tile

KEY_BYTES = 2  # of a dimension, as bfloat16


class LargestKey(Selector):
    """Of each page the longest key stands for all: a page weighs what that key weighs."""

    name = "largest_key"

    def tile_bytes(self, head_size: int, page_size: int) -> int:
        return KEY_BYTES * head_size * pages_of_tile(page_size)

    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        longest = keys.norm(dim=-1).argmax(-1)[..., None, None].expand(*keys.shape[:-2], 1, keys.shape[-1])
        return keys.gather(-2, longest).squeeze(-2).bfloat16().flatten(-2).view(torch.uint8)

    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        keys = tiles.contiguous().view(torch.bfloat16).float().view(-1, query.shape[-1])
        return query @ keys.T
