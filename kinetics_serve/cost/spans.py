"""Which tokens of its context a layer attends to, summed over the tokens of a generation in closed form.

A context of T tokens includes the token that attends. Every span tells three things, in tokens: what contexts attend
to, what of a cached prefix a prefill reads, and what of a prompt the steps of samples that run together read in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kinetics_serve.cost.sums import sum_capped, sum_positions_in_chunks


class Span(Protocol):
    def attended(self, first: int, last: int) -> int:
        """Tokens attended to, summed over the contexts first..last."""

    def cached(self, tokens: int) -> int:
        """Of a cached prefix, the tokens that the next ones attend to."""

    def shared(self, prompt_tokens: int, start: int, steps: int) -> int:
        """Tokens of the prompt that samples read together, summed over the steps start + 1..steps; fewer each step."""


@dataclass(frozen=True)
class Whole:
    """All of the context."""

    def attended(self, first: int, last: int) -> int:
        return sum_capped(first, last, None)

    def cached(self, tokens: int) -> int:
        return tokens

    def shared(self, prompt_tokens: int, start: int, steps: int) -> int:
        return prompt_tokens * (steps - start)


@dataclass(frozen=True)
class Window:
    """The last ``tokens``."""

    tokens: int

    def attended(self, first: int, last: int) -> int:
        return sum_capped(first, last, self.tokens)

    def cached(self, tokens: int) -> int:
        return min(tokens, self.tokens)

    def shared(self, prompt_tokens: int, start: int, steps: int) -> int:
        # In step t, tokens − t are left for the prompt.
        return sum_capped(max(self.tokens - steps, 0), self.tokens - start - 1, prompt_tokens)


@dataclass(frozen=True)
class Chunk:
    """The context's own chunk of ``tokens``: (T − 1) mod tokens + 1 of them."""

    tokens: int

    def attended(self, first: int, last: int) -> int:
        return sum_positions_in_chunks(first, last, self.tokens)

    def cached(self, tokens: int) -> int:
        return tokens % self.tokens

    def shared(self, prompt_tokens: int, start: int, steps: int) -> int:
        begun = prompt_tokens % self.tokens
        return begun * max(min(steps, self.tokens - begun) - start, 0)


@dataclass(frozen=True)
class Best:
    """The ``tokens`` that an indexer prefers. A sample with a longer context reads its own, together with nobody."""

    tokens: int

    def attended(self, first: int, last: int) -> int:
        return sum_capped(first, last, self.tokens)

    def cached(self, tokens: int) -> int:
        return tokens

    def shared(self, prompt_tokens: int, start: int, steps: int) -> int:
        return prompt_tokens * max(min(steps, self.tokens - prompt_tokens) - start, 0)
