"""A scorer of one's own: how many of the words that one hopes for a sample says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.scorers.scorer import Score
from kinetics_serve.scorers.spec import ScorerContext, ScorerOptions, ScorerSpec


class KeywordsOptions(ScorerOptions):
    """The share of the words that a sample says, whatever their case. Costs nothing."""

    kind: Literal["keywords"]
    words: Annotated[list[str], Field(min_length=1, max_length=100, examples=[["because", "therefore"]])]


@dataclass(frozen=True, slots=True)
class Keywords:
    words: Sequence[str]

    def worst_case(self, tokens: int) -> Cost:
        return ZERO

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        said = set(re.findall(r"\w+", text.casefold()))
        return Score(sum(word.casefold() in said for word in self.words) / len(self.words))


async def _make(options: KeywordsOptions, context: ScorerContext) -> Keywords:
    return Keywords(options.words)


SPEC = ScorerSpec("keywords", KeywordsOptions, _make)
