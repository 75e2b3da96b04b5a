"""Who pays for reading a prompt that several samples attend to at once."""

from __future__ import annotations


class SharedPrompt:
    """Samples of one prompt, which run together and read its KV once a step for all that attend densely.

    That is the paper's accounting of Best-of-N. ``clock`` is the furthest step that any sample reached. A
    sample joins at the clock, so the samples' steps cover 0 to ``clock`` without a gap: when all are settled
    the steps charged sum to exactly ``clock``, and no sample is charged more steps than it ran.

    ``dense_steps`` is how many steps of a sample attend densely (see ``KVPolicy.dense_steps``). Later ones
    read pages that nobody else does, so they neither move the clock nor are charged here.
    """

    def __init__(self, dense_steps: int | None = None) -> None:
        self.dense_steps = dense_steps
        self.clock = 0
        self.charged = 0

    def join(self) -> int:
        """The start step of a sample that begins now."""
        return self.clock

    def advance(self, start: int, tokens: int) -> None:
        """The sample that joined at ``start`` has generated ``tokens`` in all."""
        if not 0 <= start <= self.clock or tokens < 0:
            raise ValueError(f"expected a start within 0..{self.clock} and tokens >= 0, got {start} and {tokens}")
        self.clock = max(self.clock, start + self._dense(tokens))

    def settle(self, start: int, tokens: int) -> int:
        """The sample that joined at ``start`` ends with ``tokens`` generated, at least as many as it
        advanced to.

        Returns the steps of prompt reads charged to it, for ``Price.settle``. Call once a sample.
        """
        self.advance(start, tokens)
        steps = min(self._dense(tokens), self.clock - self.charged)
        self.charged += steps
        return steps

    def _dense(self, tokens: int) -> int:
        return tokens if self.dense_steps is None else min(tokens, self.dense_steps)
