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


class Reads(NamedTuple):
    """Steps of a group in which anybody reads what all of it reads."""

    now: int = 0
    """the furthest of them"""

    steps: int = 0
    charged: int = 0

    def until(self, first: int, last: int) -> Reads:
        """A sample reads in the steps first + 1..last as well."""
        return Reads(max(self.now, last), self.steps + max(0, last - max(self.now, first)), self.charged)

    def charge(self, steps: int) -> tuple[Reads, int]:
        """A sample that read in so many steps ends: how many of them it is charged."""
        charged = min(steps, self.steps - self.charged)
        return Reads(self.now, self.steps, self.charged + charged), charged


class SharedPrompt:
    """Samples of one prompt, which run together: what they read in common is read once a step for all of them.

    That is the paper's accounting of Best-of-N. While samples attend to their whole context, they have the prompt's KV
    in common; afterwards, the summaries of the prompt's pages. ``clock`` is the furthest step that any sample reached,
    and a sample joins at the clock. When all are settled, the steps charged are exactly those in which anybody read,
    and no sample is charged more steps than it ran.

    ``dense_steps`` is how many steps of a sample attend densely (see ``KVPolicy.dense_steps``); None is all of them.
    """

    def __init__(self, dense_steps: int | None = None) -> None:
        self.dense_steps = dense_steps
        self.dense, self.sparse = Reads(), Reads()

    @property
    def clock(self) -> int:
        return max(self.dense.now, self.sparse.now)

    def join(self) -> int:
        """The start step of a sample that begins now."""
        return self.clock

    def advance(self, start: int, tokens: int) -> Steps:
        """The sample that joined at ``start`` has generated ``tokens`` in all: these are its steps."""
        if not 0 <= start <= self.clock or tokens < 0:
            raise ValueError(f"expected a start within 0..{self.clock} and tokens >= 0, got {start} and {tokens}")
        steps = Steps.of(tokens, self.dense_steps)
        self.dense = self.dense.until(start, start + steps.dense)
        if steps.sparse:
            self.sparse = self.sparse.until(start + steps.dense, start + tokens)
        return steps

    def settle(self, start: int, tokens: int) -> Steps:
        """The sample that joined at ``start`` ends with ``tokens`` generated, at least as many as it
        advanced to.

        Returns the steps of reading the prompt that are charged to it, for ``Price.settle``. Call once a sample.
        """
        steps = self.advance(start, tokens)
        self.dense, dense = self.dense.charge(steps.dense)
        self.sparse, sparse = self.sparse.charge(steps.sparse)
        return Steps(dense, sparse)
