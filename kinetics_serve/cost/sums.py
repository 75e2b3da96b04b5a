"""Closed forms of the sums over a generation's tokens, exact in ints. An empty range sums to 0."""

from __future__ import annotations


def sum_capped(first: int, last: int, cap: int | None) -> int:
    """Σ min(i, cap) for i = first..last, with first ≥ 0; no cap if None."""
    if last < first:
        return 0
    if cap is None or last <= cap:
        return (first + last) * (last - first + 1) // 2
    if first > cap:
        return cap * (last - first + 1)
    return (first + cap) * (cap - first + 1) // 2 + cap * (last - cap)


def sum_positions_in_chunks(first: int, last: int, chunk: int) -> int:
    """Σ (i − 1) mod chunk + 1 for i = first..last, with first ≥ 1."""
    if last < first:
        return 0
    return _positions_to(last, chunk) - _positions_to(first - 1, chunk)


def _positions_to(last: int, chunk: int) -> int:
    chunks, rest = divmod(last, chunk)  # i = 1..last: `chunks` runs of 1..chunk, then 1..rest
    return chunks * (chunk * (chunk + 1) // 2) + rest * (rest + 1) // 2


def sum_whole_pages(first: int, last: int, page_size: int) -> int:
    """Σ floor(i / page_size) for i = first..last, with first ≥ 0."""
    if last < first:
        return 0
    return _whole_pages_to(last, page_size) - _whole_pages_to(first - 1, page_size)


def _whole_pages_to(last: int, page_size: int) -> int:
    pages, rest = divmod(last + 1, page_size)  # i = 0..last: `pages` full runs of equal terms, then `rest` terms
    return page_size * (pages * (pages - 1) // 2) + pages * rest
