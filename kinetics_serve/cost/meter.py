"""The running cost of one sample while it streams."""

from __future__ import annotations

from kinetics_serve.cost.policy import DENSE, KVPolicy
from kinetics_serve.cost.price import Price


class Meter:
    """Counts a sample's tokens; ``cost`` is at any time exactly ``Price.sample`` of them."""

    def __init__(self, price: Price, prompt_tokens: int, kv: KVPolicy = DENSE, cached_tokens: int = 0) -> None:
        self.price = price
        self.prompt_tokens = prompt_tokens
        self.kv = kv
        self.cached_tokens = cached_tokens
        self.tokens = 0
        self.cost = price.prefill(prompt_tokens, cached_tokens)

    def advance(self, tokens: int) -> None:
        """``tokens`` more have been generated. Raises ValueError if negative."""
        after = self.tokens + tokens
        self.cost += self.price.decode(self.prompt_tokens, after, self.kv, start=self.tokens)
        self.tokens = after
