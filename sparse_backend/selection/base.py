"""The interface of a page selector, and the pieces that selectors share.

A selector in plain torch, registered in the entry-point group `sparse_backend.selectors`, is enough to run on the
reference kernels. For the built-in ones `sparse_backend.kernels` has fast ones that do the same.
A tile summarises the BLOCK tokens of one (KV block, KV head). What stands for keys is interleaved, the page fastest,
so that a vector register holds the same element of several pages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from sparse_backend.constants import BLOCK


class Selector(ABC):
    """Scores pages by summaries of their keys."""

    name: ClassVar[str]
    """As it is registered."""

    key_share: ClassVar[float] = 1.0
    """Keys are cheaper to rule on than values: a selector may read the keys of more tokens than the budget says, and
    in exchange the values of fewer. Together they cost at most the bytes of `kv_budget` whole tokens."""

    value_share: ClassVar[float] = 1.0
    """The values of how many, as a share of the budget."""

    first_layer_share: ClassVar[float] = 1.0
    """The first layer attends more widely than the others: its share of the budget, which they pay for."""

    residual: ClassVar[bool] = False
    """Whether what is not read still counts, as its estimated mass times a mean value."""

    def layer_budgets(self, budget: int, layers: int, first: bool) -> tuple[int, int]:
        """Budgets of the model's first layer and of each other one, which together cost `budget` a layer at most.

        layers: how many are sparse; first: whether the model's first layer is one of them.
        """
        if not first:
            return 0, budget
        share = max(1.0, min(self.first_layer_share, layers / 8))
        return int(budget * share), int(budget * (layers - share) / max(1, layers - 1))

    def key_tokens(self, budget: int, page_size: int) -> int:
        """Tokens whose keys are read under a budget: a multiple of `page_size`."""
        return int(budget * self.key_share) // page_size * page_size

    def value_tokens(self, budget: int) -> int:
        """Tokens whose values are read under a budget."""
        return int(budget * self.value_share)

    @abstractmethod
    def tile_bytes(self, head_size: int, page_size: int) -> int:
        """Bytes of the summary of one (block, KV head)."""

    @abstractmethod
    def summarise(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Summaries of the pages of one block.

        keys: [..., pages, page_size, head_size] float32; values: the same of the complete pages.
        Returns uint8 [..., tile_bytes].
        """

    @abstractmethod
    def log_mass(self, tiles: torch.Tensor, query: torch.Tensor, page_size: int) -> torch.Tensor:
        """Estimates log Σ e^logit over each page's tokens, up to a constant for each query head.

        tiles: uint8 [blocks, tile_bytes]; query: [num_queries_per_kv, head_size] float32, softmax scale included.
        Returns float32 [num_queries_per_kv, blocks × pages of a block].
        """

    def page_scores(self, log_mass: torch.Tensor) -> torch.Tensor:
        """[num_queries_per_kv, pages] -> [pages]: the mass that all query heads together put on each page.

        log_mass: of all complete pages, those that are read anyway too. A query head that looks at these alone has no
        say in which others are read.
        """
        return torch.softmax(log_mass, -1).sum(0)

    def mean_values(self, tiles: torch.Tensor, head_size: int, page_size: int) -> torch.Tensor:
        """Mean values, each of the same number of tokens, float32 [blocks × means of a block, head_size].

        Only where `residual` is true.
        """
        raise NotImplementedError(f"{self.name} keeps no mean values")


def interleave(x: torch.Tensor) -> torch.Tensor:
    """[..., pages, items] -> [..., items × pages], the page fastest."""
    return x.transpose(-1, -2).flatten(-2)


def deinterleave(x: torch.Tensor, pages: int) -> torch.Tensor:
    """[..., items × pages] -> [..., pages, items]."""
    return x.reshape(*x.shape[:-1], -1, pages).transpose(-1, -2)


def as_bytes(x: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, its last dimension widened."""
    return x.contiguous().view(torch.uint8)


def pages_of_tile(page_size: int) -> int:
    """Pages that one tile summarises."""
    return BLOCK // page_size
