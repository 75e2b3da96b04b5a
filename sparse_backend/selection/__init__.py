"""Which pages of the KV cache a decode step reads."""

from sparse_backend.selection.base import Selector
from sparse_backend.selection.block_mean import BlockMean
from sparse_backend.selection.exact import Exact
from sparse_backend.selection.low_rank import LowRank
from sparse_backend.selection.quest import Quest

_SELECTORS: dict[str, type[Selector]] = {s.name: s for s in (LowRank, BlockMean, Quest, Exact)}


def get_selector(name: str) -> Selector:
    """The selector called `name`. Raises KeyError."""
    return _SELECTORS[name]()


__all__ = ["BlockMean", "Exact", "LowRank", "Quest", "Selector", "get_selector"]
