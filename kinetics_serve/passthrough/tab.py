"""What a request without a budget costs, read off vLLM's answer as it passes by."""

import re
from math import ceil, inf
from time import monotonic

from kinetics_serve.cost import KVPolicy, Price

# Matched in the bytes of a JSON object: a quote inside any of its texts is escaped, so only its keys match.
USAGE = re.compile(rb',"usage":\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
_NUMBER = rb'"%s":\s*(\d+)'
_PROMPT_TOKENS, _COMPLETION_TOKENS, _CACHED_TOKENS, _INDEX = (
    re.compile(_NUMBER % name) for name in (b"prompt_tokens", b"completion_tokens", b"cached_tokens", b"index")
)
NO_CHOICES = re.compile(rb'"choices":\s*\[\]')

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

    def read(self, data: bytes) -> None:
        """Takes in a stream's event, with the usage of one choice, or with that of the whole request and no choice."""
        tokens = _COMPLETION_TOKENS.search(data)
        if tokens is None:
            return
        index = _INDEX.search(data)
        if NO_CHOICES.search(data) or index is None:
            self.read_total(data)
        else:
            self._completion_tokens[int(index[1])] = int(tokens[1])

    def read_total(self, data: bytes) -> None:
        """Takes in a whole response, or the event with a stream's total."""
        tokens, prompt, cached = (each.findall(data) for each in (_COMPLETION_TOKENS, _PROMPT_TOKENS, _CACHED_TOKENS))
        if tokens and prompt:
            self.total(int(prompt[-1]), int(tokens[-1]), int(cached[-1]) if cached else 0)

    def total(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        """Takes in what the whole request has used."""
        self._completion_tokens = {0: completion_tokens}
        self._prompt_tokens = prompt_tokens
        self._cached_tokens = cached_tokens
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
