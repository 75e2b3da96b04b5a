"""What the kernels are told about a model's attention heads and about one engine step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from sparse_backend.config import BLOCK, SparseAttentionConfig, row_tokens
from sparse_backend.selection import Selector, get_selector


@dataclass(frozen=True)
class Heads:
    """The attention of one group of layers."""

    kv_heads: int
    group: int  # query heads per KV head
    head_size: int
    page_size: int
    dtype: torch.dtype
    selector: Selector
    sink_tokens: int
    local_tokens: int
    # Rows from one KV block to the next, those of its tiles included; 0: all tiles come after all rows. Layers of
    # several shapes share blocks, so there each block must keep its tiles to itself: a row for each BLOCK tokens.
    block_rows: int = 0

    @property
    def pages_of_block(self) -> int:
        return BLOCK // self.page_size

    @property
    def row_tokens(self) -> int:
        return row_tokens(self.page_size)

    @property
    def rows_of_block(self) -> int:
        return BLOCK // self.row_tokens

    @property
    def tile_bytes(self) -> int:
        return self.selector.tile_bytes(self.head_size, self.page_size)

    @property
    def content_rows(self) -> int:
        """Rows of a KV block that hold keys and values, where it keeps its tiles to itself."""
        return self.block_rows // (self.rows_of_block + 1) * self.rows_of_block

    @property
    def tile_rows(self) -> int:
        return self.block_rows - self.content_rows

    def tile_index(self, row: torch.Tensor) -> torch.Tensor:
        """Which tiles summarise rows of the cache, see `split_cache`."""
        if not self.block_rows:
            return row // self.rows_of_block
        first = row // self.block_rows * self.block_rows
        return first + self.content_rows + row % self.block_rows // self.rows_of_block

    @property
    def tile_bytes_per_token(self) -> int:
        """What a token's share of a tile takes in the KV cache: whole elements of the cache's dtype."""
        size = self.dtype.itemsize
        if self.block_rows:
            return 2 * self.head_size * size // self.rows_of_block
        return -(-self.tile_bytes // (BLOCK * size)) * size


@cache  # layers of one shape get one object, by which the kernels see that a step is prepared for them already
def heads_of(
    config: SparseAttentionConfig, kv_heads: int, group: int, head_size: int, dtype: torch.dtype, block_rows: int = 0
) -> Heads:
    return Heads(
        kv_heads=kv_heads,
        group=group,
        head_size=head_size,
        page_size=config.page_size,
        dtype=dtype,
        selector=get_selector(config.selector),
        sink_tokens=config.sink_tokens,
        local_tokens=config.local_tokens,
        block_rows=block_rows,
    )


@dataclass(frozen=True)
class DecodeBatch:
    """One engine step: its requests, and those among them that decode sparsely. int32 CPU tensors."""

    seq_lens: torch.Tensor  # [batch]
    block_table: torch.Tensor  # [batch, rows], in rows of the cache, the rows of a block adjacent
    rows: torch.Tensor  # [sparse requests] batch row
    tokens: torch.Tensor  # [sparse requests] row of its one query token
    key_tokens: torch.Tensor  # [sparse requests] tokens whose keys are read
    value_tokens: torch.Tensor  # [sparse requests] tokens whose values are read


def split_cache(kv_cache: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
    """The two regions of one layer's contiguous KV allocation, as views.

    kv_cache: [rows, kv_heads, row_tokens, 2 × head_size + a tile's share]. All keys and values come first, then all
    tiles, so that scoring streams. Returns the cache [rows, kv_heads, row_tokens, 2 × head_size] and
    the tiles, uint8 [blocks, kv_heads, bytes]. Where blocks keep their tiles to themselves, both are views of all
    of it, [rows with those of tiles, …].
    """
    rows = kv_cache.shape[0]
    if heads.block_rows:
        cache = kv_cache.view(-1, heads.kv_heads, heads.row_tokens, 2 * heads.head_size)
        return cache, cache.view(torch.uint8).flatten(2)
    content = rows * heads.kv_heads * heads.row_tokens * 2 * heads.head_size
    flat = kv_cache.view(-1)
    cache = flat[:content].view(rows, heads.kv_heads, heads.row_tokens, 2 * heads.head_size)
    tiles = flat[content:].view(torch.uint8).view(rows // heads.rows_of_block, heads.kv_heads, -1)
    return cache, tiles


def skip_tiles(index: torch.Tensor, content: int, tiles: int) -> torch.Tensor:
    """Rows or slots as vLLM numbers them -> as they lie in blocks that keep `tiles` of them behind `content` others.

    index: negative where there is none.
    """
    return torch.where(index < 0, index, index + index // content * tiles)


def keys_and_values(cache: torch.Tensor, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of a cache as keys [rows, kv_heads, head_size, row_tokens] and values [.., row_tokens, head_size]."""
    rows, kv_heads, row_tokens, _ = cache.shape
    halves = cache.view(rows, kv_heads, 2, -1)
    keys = halves[:, :, 0].view(rows, kv_heads, head_size, row_tokens)
    return keys, halves[:, :, 1].view(rows, kv_heads, row_tokens, head_size)
