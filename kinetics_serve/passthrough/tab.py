"""What a request without a budget costs, read off vLLM's answer as it passes by."""

from math import ceil, inf
from time import monotonic
from typing import Any

from kinetics_serve.cost import KVPolicy, Price
from kinetics_serve.engine.usage import count

HELD_UP_S = 1.0
"""Where a client takes longer to read an event, what the engine generates meanwhile has not been read either."""


class Tab:
    """What one request without a budget has cost so far.

    price: None for a model that can't be priced, whose requests count as free. kv: how the engine attends.
    prompts: how many there are, of prompt_tokens in all, each with `n` completions of at most max_tokens.
    """

    def __init__(
        self, price: Price | None, kv: KVPolicy, prompts: int, prompt_tokens: int, n: int, max_tokens: int
    ) -> None:
        self._price = price
        self._kv = kv
        self._prompts = prompts
        self._n = n
        self._max_tokens = max_tokens
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = 0
        self._completion_tokens: dict[int, int] = {}
        self.reserved = self._eflops(max_tokens * prompts * n)
        self._known = False
        self._free = False
        self._offered_at = inf
        self._behind = False

    def spent(self) -> int:
        """eFLOPs. Between sending a request and the first sign of what it generated: all that was reserved."""
        if self._free:
            return 0
        if self._behind or not self._known or self._held_up:
            return self.reserved
        return min(self._eflops(sum(self._completion_tokens.values())), self.reserved)

    def refused(self) -> None:
        """The engine generated nothing, or failed."""
        self._free = True

    def accepted(self) -> None:
        """The engine streams: what it generates will be known."""
        self._known = True

    def read(self, chunk: dict[str, Any]) -> None:
        """Takes in a stream's chunk, with the usage of one choice, or with that of the whole request and no choice.

        A choice whose chunk does not tell counts as long as it may become, until one does.
        """
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return self.read_total(chunk)
        tokens = count(chunk.get("usage"), "completion_tokens")
        index = count(choices[0], "index") or 0
        self._completion_tokens[index] = self._max_tokens if tokens is None else tokens

    def read_total(self, answer: dict[str, Any]) -> None:
        """Takes in a whole response, or the chunk with a stream's total."""
        usage = answer.get("usage")
        tokens = count(usage, "completion_tokens")
        if usage is not None and tokens is not None:
            cached = count(usage.get("prompt_tokens_details"), "cached_tokens")
            self.total(count(usage, "prompt_tokens"), tokens, cached)

    def total(self, prompt_tokens: int | None, completion_tokens: int, cached_tokens: int | None) -> None:
        """Takes in what the whole request has used. A prompt of None is as long as it was reserved for."""
        self._completion_tokens = {0: completion_tokens}
        if prompt_tokens is not None:
            self._prompt_tokens = prompt_tokens
        self._cached_tokens = cached_tokens or 0
        self._known = True
        self._behind = False

    def at_most(self, completion_tokens: int) -> None:
        """Takes in a bound on what has been generated so far, where that itself is told only at the end."""
        self._completion_tokens = {0: completion_tokens}
        self._known = True

    def offered(self) -> None:
        """The client is handed an event; meanwhile, the engine's further ones are not read."""
        self._offered_at = monotonic()

    def taken(self) -> bool:
        """It has read that, or is gone. Returns whether it took long."""
        held_up = self._held_up
        self._behind = self._behind or held_up
        self._offered_at = inf
        return held_up

    def caught_up(self) -> None:
        """All has been read that the engine has sent."""
        self._behind = False

    @property
    def _held_up(self) -> bool:
        return monotonic() - self._offered_at > HELD_UP_S

    def _eflops(self, completion_tokens: int) -> int:
        """Tokens are taken as spread evenly over the completions, whose single lengths vLLM does not report."""
        if self._price is None:
            return 0
        completions = self._prompts * self._n
        prompt = ceil(self._prompt_tokens / self._prompts)
        cached = min(self._cached_tokens // self._prompts, prompt)
        each = self._price.sample(prompt, ceil(completion_tokens / completions), self._kv, cached)
        return ceil(self._price.eflops(each)) * completions
