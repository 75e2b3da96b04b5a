"""Which pages of the KV cache a decode step reads."""

from sparse_backend.selection.base import Selector, pages_of_tile
from sparse_backend.selection.block_mean import BlockMean
from sparse_backend.selection.exact import Exact
from sparse_backend.selection.low_rank import LowRank
from sparse_backend.selection.quest import Quest
from sparse_backend.selection.registry import get_selector, selector_names

__all__ = ["BlockMean", "Exact", "LowRank", "Quest", "Selector", "get_selector", "pages_of_tile", "selector_names"]
