"""How confident the model was in a sample, from the log-probabilities of its tokens.

DeepConf (Fu et al. 2025, arXiv 2508.15260): a token's confidence is the mean negative log-probability of its k
most likely candidates, high where the distribution is peaked; a sample's is the mean over its tokens, or that of
its least confident stretch.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

TOP_LOGPROBS = 5
"""Candidates per token asked of vLLM: OpenAI allows 20, and each costs bytes on the wire."""

WINDOW_TOKENS = 128
"""The stretch of the worst-window statistic: DeepConf's 2,048 suits reasoning of 30k tokens, ours are shorter."""


def token_confidence(logprobs: Iterable[float]) -> float:
    """Mean negative log-probability, in nats, of a token's candidates."""
    values = list(logprobs)
    return -sum(values) / len(values) if values else 0.0


@dataclass(slots=True)
class Confidence:
    """Running confidence of one sample as its tokens arrive."""

    window: int = WINDOW_TOKENS
    tokens: int = 0
    _sum: float = 0.0
    _recent: deque[float] = field(default_factory=deque)
    _recent_sum: float = 0.0
    _worst: float | None = None

    def add(self, logprobs: Iterable[float]) -> None:
        """One more token, by the log-probabilities of its candidates."""
        value = token_confidence(logprobs)
        self.tokens += 1
        self._sum += value
        self._recent.append(value)
        self._recent_sum += value
        if len(self._recent) > self.window:
            self._recent_sum -= self._recent.popleft()
        if len(self._recent) == self.window:
            mean = self._recent_sum / self.window
            self._worst = mean if self._worst is None else min(self._worst, mean)

    @property
    def mean(self) -> float:
        return self._sum / self.tokens if self.tokens else 0.0

    @property
    def worst_window(self) -> float:
        """The least mean over any full window; the mean of all where there is no full one yet."""
        return self.mean if self._worst is None else self._worst
