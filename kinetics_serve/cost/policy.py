"""How much of the context a sample's decode steps attend to."""

from __future__ import annotations

from dataclasses import dataclass

from kinetics_serve.cost.sums import sum_capped


@dataclass(frozen=True)
class KVPolicy:
    """A KV budget, and what its selector reads to spend it well.

    ``budget`` is the tokens attended per KV head and step; None is dense. ``summary_vectors`` is how many
    vectors of head_size elements the selector reads for every page of ``page_size`` tokens of the context,
    per KV head: 1 for a mean key, 2 for Quest's min and max, 0 for an oracle that knows the top tokens (the
    paper's top-k). A context within the budget, or of at most ``min_context`` tokens, is attended densely and reads no
    summary; sliding-window layers ignore the budget. Raises ValueError for a budget or page below one token, or
    negative summaries or contexts.
    """

    budget: int | None = None
    page_size: int = 1
    summary_vectors: float = 0.0
    min_context: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"a KV budget must be at least 1 token, or None for dense; got {self.budget}")
        if self.page_size < 1:
            raise ValueError(f"page_size must be at least 1 token, got {self.page_size}")
        if not 0 <= self.summary_vectors < float("inf"):
            raise ValueError(f"summary_vectors must be finite and not negative, got {self.summary_vectors}")

        if self.min_context < 0:
            raise ValueError(f"min_context must not be negative, got {self.min_context}")

    @property
    def longest_dense(self) -> int | None:
        """The longest context that is attended densely, in tokens; None where all are."""
        return None if self.budget is None else max(self.budget, self.min_context)

    def attended(self, first: int, last: int) -> int:
        """Tokens that full attention attends to, summed over the contexts first..last."""
        dense = self.longest_dense
        if dense is None or dense == self.budget:
            return sum_capped(first, last, self.budget)
        return sum_capped(first, min(last, dense), None) + sum_capped(max(first, dense + 1), last, self.budget)

    def dense_steps(self, prompt_tokens: int) -> int | None:
        """How many of a sample's decode steps, its first, attend to the whole context; None is all of them."""
        dense = self.longest_dense
        return None if dense is None else max(0, dense - prompt_tokens)


DENSE = KVPolicy()
