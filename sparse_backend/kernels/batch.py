"""What the kernels are told about a model's attention heads and about one engine step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparse_backend.config import SparseAttentionConfig
from sparse_backend.constants import BLOCK, kernel_block_tokens
from sparse_backend.selection import Selector


@dataclass(frozen=True)
class Heads:
    """The attention heads of layers that have the same."""

    kv_heads: int

    num_queries_per_kv: int
    """Query heads that share a KV head."""

    head_size: int

    page_size: int
    """Tokens that are chosen together."""

    dtype: torch.dtype
    """Of queries, keys and values."""

    selector: Selector

    sink_tokens: int
    """The first tokens, whose keys are always read."""

    local_tokens: int
    """The last tokens, whose keys are always read."""

    block_stride: int = 0
    """Kernel blocks from one KV block to the next, those of its tiles included; 0: all tiles come after all keys and
    values. Layers of several shapes share KV blocks, so there each must keep its tiles to itself: a tile takes the
    room of a kernel block."""

    @classmethod
    def of(
        cls,
        config: SparseAttentionConfig,
        selector: Selector,
        kv_heads: int,
        num_queries_per_kv: int,
        head_size: int,
        dtype: torch.dtype,
        block_stride: int = 0,
    ) -> Heads:
        """The heads of layers of one shape, in an engine of these settings."""
        window = config.sink_tokens, config.local_tokens
        return cls(kv_heads, num_queries_per_kv, head_size, config.page_size, dtype, selector, *window, block_stride)

    @property
    def pages_of_tile(self) -> int:
        return BLOCK // self.page_size

    @property
    def kernel_block_tokens(self) -> int:
        return kernel_block_tokens(self.page_size)

    @property
    def kernel_blocks_of_tile(self) -> int:
        return BLOCK // self.kernel_block_tokens

    @property
    def tile_bytes(self) -> int:
        return self.selector.tile_bytes(self.head_size, self.page_size)

    @property
    def block_tiles(self) -> int:
        """Tiles of a KV block, where it keeps them to itself."""
        return self.block_stride // (self.kernel_blocks_of_tile + 1)

    @property
    def block_content(self) -> int:
        """Kernel blocks of a KV block that hold keys and values, where it keeps its tiles to itself."""
        return self.block_tiles * self.kernel_blocks_of_tile

    def tile_index(self, kernel_block: torch.Tensor) -> torch.Tensor:
        """Which tiles summarise kernel blocks of the cache, see `split_cache`."""
        if not self.block_stride:
            return kernel_block // self.kernel_blocks_of_tile
        first = kernel_block // self.block_stride * self.block_stride
        return first + self.block_content + kernel_block % self.block_stride // self.kernel_blocks_of_tile

    @property
    def tile_bytes_per_token(self) -> int:
        """What a token's share of a tile takes in the KV cache: whole elements of the cache's dtype."""
        size = self.dtype.itemsize
        if self.block_stride:
            return 2 * self.head_size * size // self.kernel_blocks_of_tile
        return -(-self.tile_bytes // (BLOCK * size)) * size


@dataclass(frozen=True)
class DecodeBatch:
    """One engine step: its requests, and those among them that decode sparsely. int32 CPU tensors."""

    seq_lens: torch.Tensor
    """[batch]"""

    block_table: torch.Tensor
    """[batch, kernel blocks] kernel blocks of the cache, those of a tile adjacent."""

    requests: torch.Tensor
    """[sparse requests] their place in the batch."""

    tokens: torch.Tensor
    """[sparse requests] the place of the one query token of each."""

    key_tokens: torch.Tensor
    """[sparse requests] tokens whose keys are read, a multiple of the page size."""

    value_tokens: torch.Tensor
    """[sparse requests] tokens whose values are read."""


@dataclass(frozen=True)
class Softmax:
    """How a layer makes weights of its logits."""

    scale: float
    """Of the dot products of queries and keys."""

    soft_cap: float = 0.0
    """Bounds logits, smoothly, to between its negative and itself (Gemma 2); 0: no bound."""

    sinks: torch.Tensor | None = None
    """[query heads] one logit more for each head, that has no value (gpt-oss). Contiguous; on CPUs float32."""

    def cap(self, logits: torch.Tensor) -> torch.Tensor:
        return self.soft_cap * torch.tanh(logits / self.soft_cap) if self.soft_cap else logits

    def cap_mass(self, log_mass: torch.Tensor, tokens: int) -> torch.Tensor:
        """As if each of `tokens` tokens had an equal share of the mass."""
        shift = math.log(tokens)
        return self.cap(log_mass - shift) + shift if self.soft_cap else log_mass


def split_cache(kv_cache: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
    """The two regions of one layer's contiguous KV allocation, as views.

    kv_cache: [kernel blocks, kv_heads, kernel_block_tokens, 2 × head_size + a tile's share]. All keys and values come
    first, then all tiles, so that scoring streams. Returns the cache [kernel blocks, kv_heads, kernel_block_tokens,
    2 × head_size] and the tiles, uint8 [blocks, kv_heads, bytes]. Where blocks keep their tiles to themselves, both are
    views of all of it, [kernel blocks with those of tiles, …]. Where all layers have windows, vLLM makes KV blocks of
    one kernel block: no layer is sparse, and the tiles, which nobody reads, end before the last blocks.
    """
    count, shape = kv_cache.shape[0], (heads.kv_heads, heads.kernel_block_tokens, 2 * heads.head_size)
    if heads.block_stride:
        cache = kv_cache.view(-1, *shape)
        return cache, cache.view(torch.uint8).flatten(2)
    content = count * heads.kv_heads * heads.kernel_block_tokens * 2 * heads.head_size
    flat = kv_cache.view(-1)
    cache = flat[:content].view(count, *shape)
    blocks = count // heads.kernel_blocks_of_tile
    tiles = flat[content:].view(torch.uint8)
    size = len(tiles) // max(1, blocks * heads.kv_heads)
    return cache, tiles[: blocks * heads.kv_heads * size].view(blocks, heads.kv_heads, size)


def skip_tiles(index: torch.Tensor, content: int, tiles: int) -> torch.Tensor:
    """Kernel blocks or slots as vLLM numbers them -> as they lie in KV blocks that keep `tiles` of them behind
    `content` others.

    index: negative where there is none.
    """
    return torch.where(index < 0, index, index + index // content * tiles)


def keys_and_values(cache: torch.Tensor, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of a cache as keys [kernel blocks, kv_heads, head_size, kernel_block_tokens] and values
    [.., kernel_block_tokens, head_size]."""
    count, kv_heads, tokens, _ = cache.shape
    halves = cache.view(count, kv_heads, 2, -1)
    keys = halves[:, :, 0].view(count, kv_heads, head_size, tokens)
    return keys, halves[:, :, 1].view(count, kv_heads, tokens, head_size)
