"""Who pays for reading a prompt that several samples attend to at once."""

from __future__ import annotations

from typing import NamedTuple


class Steps(NamedTuple):
    """Decode steps of a sample."""

    dense: int
    """while it attends to its whole context"""

    sparse: int = 0
    """later, once its context exceeds its KV budget"""

    @classmethod
    def of(cls, tokens: int, dense_steps: int | None) -> Steps:
        """Those of so many tokens. dense_steps: how many attend densely, see ``KVPolicy.dense_steps``."""
        dense = tokens if dense_steps is None else min(tokens, dense_steps)
        return cls(dense, tokens - dense)


class SharedPrompt:
    """Samples of one prompt, which run together: what they read in common is read once a step for all of them.

    That is the paper's accounting of Best-of-N. While samples attend to their whole context, they have the prompt's KV
    in common; afterwards, the summaries of the prompt's pages. ``clock`` is the furthest step that any sample reached,
    and a sample joins at the clock. When all are settled, the steps charged are exactly those in which anybody read,
    and no sample is charged more steps than it ran. In which order samples advance makes no difference.

    ``dense_steps`` is how many steps of a sample attend densely (see ``KVPolicy.dense_steps``); None is all of them.
    """

    def __init__(self, dense_steps: int | None = None) -> None:
        self.dense_steps = dense_steps
        # By start, in ascending order: the tokens of the longest sample that joined there. Replaced and never changed,
        # so that a copy of the group goes its own way.
        self._longest: dict[int, int] = {}
        self._charged = Steps(0)

    @property
    def clock(self) -> int:
        return max([start + tokens for start, tokens in self._longest.items()], default=0)

    def join(self) -> int:
        """The start step of a sample that begins now."""
        start = self.clock
        if start not in self._longest:
            self._longest = {**self._longest, start: 0}
        return start

    def advance(self, start: int, tokens: int) -> None:
        """The sample that joined at ``start`` has generated ``tokens`` in all."""
        if start not in self._longest or tokens < 0:
            starts = list(self._longest)
            raise ValueError(f"expected tokens >= 0 and a start of {starts} (of a sample), got {tokens} and {start}")
        if tokens > self._longest[start]:
            self._longest = {**self._longest, start: tokens}

    def settle(self, start: int, tokens: int) -> Steps:
        """The sample that joined at ``start`` ends with ``tokens`` generated, at least as many as it
        advanced to.

        Returns the steps of reading the prompt that are charged to it, for ``Price.settle``. Call once a sample.
        """
        self.advance(start, tokens)
        own, read, charged = Steps.of(tokens, self.dense_steps), self._read(), self._charged
        due = Steps(min(own.dense, read.dense - charged.dense), min(own.sparse, read.sparse - charged.sparse))
        self._charged = Steps(charged.dense + due.dense, charged.sparse + due.sparse)
        return due

    def _read(self) -> Steps:
        """Those in which anybody read the prompt's KV, and those in which anybody read its summaries."""
        dense = sparse = dense_until = sparse_until = 0
        for start, tokens in self._longest.items():
            steps = Steps.of(tokens, self.dense_steps)
            turns, ends = start + steps.dense, start + tokens
            dense += max(0, turns - max(start, dense_until))
            sparse += max(0, ends - max(turns, sparse_until))
            dense_until, sparse_until = max(dense_until, turns), max(sparse_until, ends)
        return Steps(dense, sparse)
