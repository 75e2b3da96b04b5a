"""Huge pages for the KV cache, which sparse attention reads in small scattered pieces.

With pages of 4 KiB nearly every piece would need an address translation that the CPU doesn't hold.
"""

from __future__ import annotations

import ctypes
import mmap

import torch


def use_huge_pages(memory: torch.Tensor) -> None:
    """Asks Linux to back a tensor's memory by huge pages, as far as it isn't in use yet. Elsewhere: does nothing.

    Linux does so where /sys/kernel/mm/transparent_hugepage/enabled is `madvise`, the usual default, or `always`.
    What is in use could be collapsed into huge pages too, at less than half a GB a second.
    """
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None:
        return
    first = -(-memory.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = memory.data_ptr() + memory.nbytes - first
    if length > 0:  # a refusal changes nothing but speed
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), advice)
