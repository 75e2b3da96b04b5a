"""Where keys, values and summaries lie in a CUDA KV cache, what one engine step looks like, and the scratch memory.

A KV block (BLOCK tokens) holds the keys and values of every KV head, and behind them one tile of summaries a head.
Blocks stay whole, so any cache layout of vLLM works that keeps a layer's block in one piece.
A GPU reads long pieces: unlike the CPU's tiles, these keep the codes of one page together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch

from sparse_backend.constants import BLOCK, RANK, pages
from sparse_backend.kernels.batch import Heads
from sparse_backend.selection.low_rank import means_of_block

SELECTORS = ("low_rank", "block_mean", "quest")  # those that the Triton kernels know
MAX_WAVE = 64  # requests whose scratch memory exists at a time; larger batches go in waves. A power of 2
MEMBERS = 8  # requests whose common pages are scored together, at most. A power of 2
PROGRAMS_PER_SM = 2  # small batches split each request's pages until there are as many
MEAN_PROGRAMS = 2  # for each that reads pages: a long context has more means than a budget has pages
MAX_SPLITS = 16  # of a request's pages, and again of its means
SMS = 132  # of an H100, where there is no GPU to ask


# Triton compiles anew for pointers and numbers that are multiples of 16, or not: of these, which differ from step to
# step and are read in small pieces, it shall not look.
OF_A_STEP = ("query_start", "seq_lens", "block_table", "page_budget", "bundles", "shared_pages")


def power_of_2(n: int) -> int:
    """The smallest power of 2 that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def power_of_2_below(n: int) -> int:
    """The largest power of 2 that is at most n, at least 1."""
    return 1 << max(0, n.bit_length() - 1)


class LowRankOffsets(NamedTuple):
    """Bytes at which a low-rank tile's parts begin, after the mean codes, int8 [pages, head_size], at 0.

    4-bit codes are stored plus 8, two a byte, the first in the low half: those of the first two directions, or where
    there is one code only, two neighbours of the last dimension.
    """

    directions: int
    """the first two, [pages, head_size] bytes"""

    third_direction: int
    """[pages, head_size / 2] bytes"""

    coefficients: int
    """of the first two directions, [pages, page_size] bytes"""

    third_coefficient: int
    """[pages, page_size / 2] bytes"""

    scales: int
    """float32 [1 + RANK, pages], of the mean and of each direction's coefficients"""

    mean_values: int
    """[means, head_size / 2] bytes"""

    value_scales: int
    """float32 [means]"""

    end: int

    @classmethod
    def of(cls, head_size: int, page_size: int) -> LowRankOffsets:
        """For a head size that is a multiple of 8, so that every float32 is aligned."""
        pages, means = BLOCK // page_size, means_of_block(page_size)
        codes = head_size * pages
        keys = [codes, codes, codes // 2, BLOCK, BLOCK // 2, 4 * (1 + RANK) * pages]
        return cls(*accumulate([*keys, means * head_size // 2, 4 * means]))


def tile_bytes(heads: Heads) -> int:
    """Bytes of the summaries of one (block, KV head)."""
    if heads.selector.name == "low_rank":
        return LowRankOffsets.of(heads.head_size, heads.page_size).end
    vectors = {"block_mean": 1, "quest": 2}[heads.selector.name]  # bfloat16 [vectors, pages, head_size]
    return 2 * vectors * heads.head_size * heads.pages_of_tile


def tile_bytes_per_token(heads: Heads) -> int:
    """What a token's share of a tile takes in the KV cache; a tile then starts at a multiple of 256 bytes."""
    return -(-tile_bytes(heads) // (2 * BLOCK)) * 2 if heads.dtype.itemsize == 2 else -(-tile_bytes(heads) // 512) * 4


def split_blocks(kv_cache: torch.Tensor, heads: Heads) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of one layer's KV cache.

    kv_cache: [blocks, kv_heads, BLOCK, 2 × head_size + a tile's share], every block in one piece. Returns
    keys and values [blocks, kv_heads, BLOCK, 2 × head_size] and tiles, int8 [blocks, kv_heads, bytes].
    """
    blocks, kv_heads, tokens, width = kv_cache.shape
    stride, share = kv_cache.stride(0), width - 2 * heads.head_size
    size = tokens * 2 * heads.head_size
    offset = kv_cache.storage_offset()
    content = kv_cache.as_strided(
        (blocks, kv_heads, tokens, 2 * heads.head_size), (stride, size, 2 * heads.head_size, 1), offset
    )
    tiles = kv_cache.as_strided(
        (blocks, kv_heads, tokens * share), (stride, tokens * share, 1), offset + kv_heads * size
    )
    return content, tiles.view(torch.int8)


@dataclass(frozen=True)
class DecodeStep:
    """One engine step, int32 tensors on the GPU. Their addresses stay the same where a CUDA graph is replayed."""

    query_start: torch.Tensor
    """[batch + 1] first query token of each request"""

    seq_lens: torch.Tensor
    """[batch]"""

    block_table: torch.Tensor
    """[batch, blocks]"""

    page_budget: torch.Tensor
    """[batch] pages that each KV head reads; 0: the request is dense in this step"""

    bundles: torch.Tensor
    """[batch, MEMBERS] requests that are scored together on the pages with which they all begin, -1 where there are no
    more. A wave's bundles are the first rows of the wave."""

    shared_pages: torch.Tensor
    """[batch] how many pages that is, for each request; 0: it is in no bundle"""


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else SMS


def parts(programs: int, requests: int, heads: Heads) -> tuple[int, int]:
    """Programs that share the pages of one (request, KV head), and those that share its mean values, if any.

    Powers of 2.
    """
    share = programs // (requests * heads.kv_heads)
    of_means = min(MAX_SPLITS, power_of_2_below(MEAN_PROGRAMS * share)) if heads.selector.residual else 0
    return min(MAX_SPLITS, power_of_2_below(share)), of_means


@dataclass(frozen=True)
class Workspace:
    """Scratch memory of the kernels, made once and used by every layer in turn."""

    log_mass: torch.Tensor
    """float32 [wave, kv_heads, num_queries_per_kv, pages] estimated, of complete pages"""

    top_mass: torch.Tensor
    """float32 [wave × kv_heads, num_queries_per_kv] the largest of these"""

    weights: torch.Tensor
    """[wave, kv_heads, num_queries_per_kv, means] mass, relative to `top_mass`, of a mean value's pages that are not
    read"""

    table: torch.Tensor
    """int32 [wave, kv_heads, pages to read] pages as they lie in the cache, block × pages of a block + page, in the
    order of the request"""

    counts: torch.Tensor
    """int32 [wave, kv_heads] how many of them"""

    output: torch.Tensor
    """float32 [wave × kv_heads × parts, num_queries_per_kv, head_size] unnormalised"""

    top: torch.Tensor
    """float32 [wave × kv_heads × parts, num_queries_per_kv] the largest logit"""

    total: torch.Tensor
    """float32 [wave × kv_heads × parts, num_queries_per_kv] the sum of exponentials"""

    programs: int
    """That fill the GPU."""

    @classmethod
    def allocate(cls, heads: Heads, requests: int, max_tokens: int, max_budget: int, device: torch.device) -> Workspace:
        """For batches of `requests`, contexts of `max_tokens` and budgets of `max_budget` tokens."""
        wave, all_pages = min(requests, MAX_WAVE), pages(max_tokens, heads.page_size)
        always = pages(heads.sink_tokens, heads.page_size) + pages(heads.local_tokens, heads.page_size) + 1
        read = min(all_pages, max(always, pages(max_budget, heads.page_size)))
        means = pages(max_tokens, BLOCK) * means_of_block(heads.page_size) if heads.selector.residual else 1
        programs = PROGRAMS_PER_SM * multiprocessors(device)
        slots = max(n * heads.kv_heads * sum(parts(programs, n, heads)) for n in range(1, wave + 1))

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        return cls(
            log_mass=empty(wave, heads.kv_heads, heads.num_queries_per_kv, all_pages),
            top_mass=empty(wave * heads.kv_heads, heads.num_queries_per_kv),
            weights=empty(wave, heads.kv_heads, heads.num_queries_per_kv, means, dtype=heads.dtype),
            table=empty(wave, heads.kv_heads, read, dtype=torch.int32),
            counts=empty(wave, heads.kv_heads, dtype=torch.int32),
            output=empty(slots, heads.num_queries_per_kv, heads.head_size),
            top=empty(slots, heads.num_queries_per_kv),
            total=empty(slots, heads.num_queries_per_kv),
            programs=programs,
        )

    def waves(self, requests: int) -> list[tuple[int, int]]:
        """First request of each wave in which a batch of `requests` goes, and how many it has."""
        wave = self.counts.shape[0]
        return [(first, min(wave, requests - first)) for first in range(0, requests, wave)]
