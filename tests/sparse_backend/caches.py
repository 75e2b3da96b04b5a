"""A small paged KV cache with shuffled blocks, for kernel tests."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import DecodeBatch, Heads
from sparse_backend.kernels.batch import Softmax, keys_and_values, skip_tiles, split_cache
from sparse_backend.selection import get_selector

SINK, LOCAL = 16, 64


def make_heads(selector: str, dtype: torch.dtype, head_size: int, queries: int, page_size: int) -> Heads:
    return Heads(2, queries, head_size, page_size, dtype, get_selector(selector), SINK, LOCAL)


@dataclass
class Paged:
    heads: Heads
    cache: torch.Tensor
    tiles: torch.Tensor
    seq_lens: torch.Tensor
    block_table: torch.Tensor

    @classmethod
    def random(cls, heads: Heads, seq_lens: list[int], spare_blocks: int = 3) -> Paged:
        width = max(-(-n // BLOCK) for n in seq_lens)
        blocks = width * len(seq_lens) + spare_blocks
        per_tile = heads.kernel_blocks_of_tile
        share = heads.tile_bytes_per_token // heads.dtype.itemsize
        shape = (blocks * per_tile, heads.kv_heads, heads.kernel_block_tokens, 2 * heads.head_size + share)
        cache, tiles = split_cache(torch.zeros(shape, dtype=heads.dtype), heads)
        # Keys that differ between pages more than within one, as real ones do.
        cache.copy_(torch.randn(cache.shape) + torch.randn(*cache.shape[:2], 1, cache.shape[3]))
        order = torch.randperm(blocks)[: width * len(seq_lens)].view(len(seq_lens), width)
        table = (order[:, :, None] * per_tile + torch.arange(per_tile)).flatten(1).int().contiguous()
        return cls(heads, cache, tiles, torch.tensor(seq_lens, dtype=torch.int32), table)

    def with_tiles_in_blocks(self, blocks: int) -> Paged:
        """The same cache where every `blocks` BLOCKs keep their tiles behind them."""
        per = self.heads.kernel_blocks_of_tile
        heads = replace(self.heads, block_stride=blocks * (per + 1))
        content = len(self.cache) // (blocks * per) * blocks * per
        share = heads.tile_bytes_per_token // heads.dtype.itemsize
        shape = (content, heads.kv_heads, heads.kernel_block_tokens, 2 * heads.head_size + share)
        cache, tiles = split_cache(torch.zeros(shape, dtype=heads.dtype), heads)
        cache[skip_tiles(torch.arange(content), blocks * per, blocks)] = self.cache[:content]
        return Paged(heads, cache, tiles, self.seq_lens, skip_tiles(self.block_table, blocks * per, blocks))

    def batch(self, budgets: dict[int, int]) -> DecodeBatch:
        """Request -> budget of those that decode sparsely; the query of a request is the token of its number."""
        selector, requests = self.heads.selector, torch.tensor(list(budgets), dtype=torch.int32)
        keys = [selector.key_tokens(b, self.heads.page_size) for b in budgets.values()]
        values = [selector.value_tokens(b) for b in budgets.values()]
        return DecodeBatch(
            self.seq_lens,
            self.block_table,
            requests,
            requests,
            torch.tensor(keys, dtype=torch.int32),
            torch.tensor(values, dtype=torch.int32),
        )

    def everything(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Requests and starts that make update_summaries summarise every page of every request."""
        n = len(self.seq_lens)
        return torch.arange(n, dtype=torch.int32), torch.zeros(n, dtype=torch.int32)

    def dense(self, query: torch.Tensor, softmax: Softmax) -> torch.Tensor:
        """Dense attention in float64, [batch, heads, head_size]."""
        keys, values = keys_and_values(self.cache, self.heads.head_size)
        outputs = []
        for request, tokens in enumerate(self.seq_lens.tolist()):
            pages = self.block_table[request].long()
            k = keys[pages].double().permute(1, 0, 3, 2).flatten(1, 2)[:, :tokens]
            v = values[pages].double().transpose(0, 1).flatten(1, 2)[:, :tokens]
            q = query[request].double().view(self.heads.kv_heads, self.heads.num_queries_per_kv, -1)
            logits = q @ k.mT * softmax.scale
            if softmax.soft_cap:
                logits = softmax.soft_cap * torch.tanh(logits / softmax.soft_cap)
            weights = logits.exp()
            total = weights.sum(-1, keepdim=True)
            if softmax.sinks is not None:
                total += softmax.sinks.double().exp().view(self.heads.kv_heads, -1, 1)
            outputs.append((weights / total @ v).flatten(0, 1))
        return torch.stack(outputs)
