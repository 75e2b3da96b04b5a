"""The regions of a layer's KV cache, as views that live no longer than vLLM keeps the cache itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch

Views = tuple[torch.Tensor, torch.Tensor]


class Regions:
    """Keys and values, and summaries, of whichever KV cache it is called with: made anew only for another one.

    vLLM makes a cache of full size to profile with, throws it away and makes another. A layer that still held views of
    the first would hold its memory.
    """

    def __init__(self, split: Callable[[torch.Tensor], Views]) -> None:
        self.split = split
        self._views: Views | None = None
        self._cache: weakref.ref[torch.Tensor] | None = None

    def __call__(self, kv_cache: torch.Tensor) -> Views:
        if self._views is None or self._cache is None or self._cache() is not kv_cache:
            self._cache = weakref.ref(kv_cache, self._forget)
            self._views = self.split(kv_cache.data)  # views of the tensor itself would keep it alive
        return self._views

    def _forget(self, _: object) -> None:
        self._views = None
