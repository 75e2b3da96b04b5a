"""What every scorer has: a score for a finished sample, and a price known before the sample starts."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kinetics_serve.cost import ZERO, Cost, Price
from kinetics_serve.engine.upstream import Json
from kinetics_serve.engine.usage import cached, reported
from kinetics_serve.errors import KineticsError

TOKENS_PER_TOKEN = 2
"""A sample's text may have so many of the scorer's tokens for each of its own: their vocabularies may differ."""

MARGIN_TOKENS = 16
"""And so many more, where its text meets the scorer's prompt."""


class ScorerFailed(KineticsError):
    """No score could be had; the message says from whom and why."""

    status = 502
    code = "scorer_failed"
    param = "kinetics.scorer"


class ScorerRefused(KineticsError):
    """A request's scorer can't be used as it is stated. field: which of its fields is at fault."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.param = f"kinetics.scorer.{field}" if field else "kinetics.scorer"


class Score(NamedTuple):
    """Higher is better. cost: FLOPs and bytes that it took, at most what was announced."""

    value: float
    cost: Cost = ZERO


class Scorer(Protocol):
    def worst_case(self, tokens: int) -> Cost:
        """The most that scoring a sample of so many tokens can cost: it is reserved with the sample."""
        ...

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        """The score of a sample of `tokens` tokens. Raises ScorerFailed."""
        ...


@dataclass(frozen=True, slots=True)
class ScorerPrompt:
    """What a model that scores reads: a question and instructions, then a sample's text."""

    price: Price
    frame_tokens: int
    """Of the question and the instructions."""
    generated: int
    """Tokens that it writes."""
    context: int
    """The most tokens that it takes, prompt and generated together."""

    def limit(self, tokens: int) -> int:
        """The most tokens of the prompt for a sample of `tokens` tokens; vLLM cuts off what exceeds it."""
        wanted = self.frame_tokens + TOKENS_PER_TOKEN * tokens + MARGIN_TOKENS
        return min(wanted, self.context - self.generated)

    def worst_case(self, tokens: int) -> Cost:
        return self.price.sample(self.limit(tokens), self.generated)

    def truncation(self, tokens: int) -> dict[str, object]:
        """vLLM's request fields that hold it to the limit. The end stays: that is where answers are."""
        return {"truncate_prompt_tokens": self.limit(tokens), "truncation_side": "left"}

    def settle(self, tokens: int, usage: Json) -> Cost:
        """The cost by what the server reports, which it can't exceed the limit with."""
        prompt = reported(usage, "prompt_tokens", self.limit(tokens))
        return self.price.sample(prompt, self.generated, cached_tokens=cached(usage, prompt))

    def check_room(self, model: str) -> None:
        """Raises ScorerRefused where the question alone fills the context."""
        if self.frame_tokens + MARGIN_TOKENS + self.generated > self.context:
            raise ScorerRefused(
                f"the question has {self.frame_tokens} tokens for the scorer {model!r}, whose context of "
                f"{self.context} leaves no room for an answer"
            )
