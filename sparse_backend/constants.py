"""What every kernel is built around. The C++ sources repeat some of it; they are compared when they are loaded."""

from __future__ import annotations

BLOCK = 128
"""Tokens of a KV block that one tile of summaries describes; vLLM's own default block size on CPU."""

MIN_KERNEL_BLOCK = 16
"""The fewest tokens that vLLM's CPU kernel keeps together."""

PAGE_SIZES = (8, 16, 32, 64)
"""Tokens that may be chosen together."""

MAX_TOKENS = 1 << 28
"""Of a KV budget and of every setting, more than any context has: kernels count in 32 bits, and the first layer reads
the keys of several times as many."""

VECTOR = 64
"""Bytes of the C++ kernels' vector registers."""

RANK = 3
"""Directions of a low-rank page summary."""

MEAN_TOKENS = 32
"""Tokens that one mean value of a low-rank summary stands for; a page, where pages are larger."""

FINE = 254
"""Steps of a query's fine code in one of its coarse code."""

POWER_ITERATIONS = 12
"""Of the search for the direction in which a page's keys spread most."""

MAX_QUERIES_PER_KV = 64
"""Query heads that share a KV head: buffers of the C++ kernels."""

MAX_HEAD_SIZE = 512
"""Dimensions of a head: buffers of the C++ kernels, whose dot products of codes fill 32 bits at 521."""

HEAD_SIZE_MULTIPLE = 16
"""Dimensions that a vector register of the C++ kernels holds."""


def kernel_block_tokens(page_size: int) -> int:
    """Tokens of a kernel block of the CPU's cache: a page, or two of 8."""
    return max(MIN_KERNEL_BLOCK, page_size)


def pages(tokens: int, page_size: int) -> int:
    """Pages that `tokens` tokens touch."""
    return -(-tokens // page_size)
