"""How confident the model was in a sample, from the log-probabilities of its tokens.

DeepConf (Fu et al. 2025, arXiv 2508.15260): a token's confidence is the mean negative log-probability of its k
most likely candidates, high where the distribution is peaked; a sample's is the mean over its tokens, or that of
its least confident group: a window that slides over them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

TOP_LOGPROBS = 5
"""Candidates per token asked of vLLM: OpenAI allows 20, and each costs bytes on the wire."""

FORBIDDEN_LOGPROB = -9000.0
"""vLLM sends -9999 for candidates that a grammar forbids; no float32 softmax gets anywhere near."""

HIGHEST_LOGPROB = 1.0
"""A probability is at most 1, and its logarithm 0, but for rounding."""

MIN_WINDOW_TOKENS = 16
WINDOWS_PER_SAMPLE = 16
"""A group is a sixteenth of the longest sample: DeepConf's 2,048 tokens for samples of up to 32k."""


def window_tokens(max_tokens: int) -> int:
    """The tokens of a group, for samples of at most `max_tokens`."""
    return max(MIN_WINDOW_TOKENS, max_tokens // WINDOWS_PER_SAMPLE)


def token_confidence(logprobs: Iterable[float | None]) -> float | None:
    """Mean negative log-probability, in nats, of a token's candidates; None where there are fewer than two.

    Candidates that a grammar forbids, or whose log-probability is none, are none. A lone one says nothing: it is the
    token itself, whose probability is low where the distribution is flat, and so would count as confidence.
    """
    values = [value for value in logprobs if value is not None and FORBIDDEN_LOGPROB < value < HIGHEST_LOGPROB]
    return -sum(values) / len(values) if len(values) > 1 else None


@dataclass(slots=True)
class Confidence:
    """Running confidence of one sample as its tokens arrive.

    window: tokens of a group. tokens: all that came, with a usable confidence or without, which counts in no mean.
    lows: (token, group confidence) whenever that was lower than ever before.
    """

    window: int = MIN_WINDOW_TOKENS
    tokens: int = 0
    usable: int = 0
    lows: list[tuple[int, float]] = field(default_factory=list)
    _sum: float = 0.0
    _recent: deque[float] = field(default_factory=deque)
    _recent_sum: float = 0.0

    def add(self, logprobs: Iterable[float | None]) -> None:
        """One more token, by the log-probabilities of its candidates."""
        value = token_confidence(logprobs)
        self.tokens += 1
        if value is None:
            return
        self.usable += 1
        self._sum += value
        self._recent.append(value)
        self._recent_sum += value
        if len(self._recent) > self.window:
            self._recent_sum -= self._recent.popleft()
        if len(self._recent) == self.window:
            group = self._recent_sum / self.window
            if not self.lows or group < self.lows[-1][1]:
                self.lows.append((self.tokens, group))

    @property
    def mean(self) -> float:
        """0 where no token's confidence is usable: the least there is, so that no sample wins by it."""
        return self._sum / self.usable if self.usable else 0.0

    @property
    def worst_window(self) -> float:
        """The least mean over any full window; the mean of all where there is no full one yet."""
        return self.lows[-1][1] if self.lows else self.mean

    def below(self, floor: float | None) -> bool:
        """Whether the group confidence has ever been below `floor`."""
        return floor is not None and bool(self.lows) and self.lows[-1][1] < floor
