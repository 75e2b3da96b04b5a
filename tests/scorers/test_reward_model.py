from typing import Any, cast

import pytest

from kinetics_serve.cost import Price
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.scorers.reward_model import RewardModel
from kinetics_serve.scorers.scorer import ScorerFailed, ScorerPrompt
from tests.synthetic import ARCHITECTURE


class Answers:
    """In an upstream's place: what it answers with."""

    def __init__(self, answer: Json) -> None:
        self.answer = answer

    async def post(self, path: str, body: Json) -> Json:
        return self.answer


async def score(probs: Any) -> float:
    answer = {"data": [{"probs": probs}], "usage": {"prompt_tokens": 10}}
    prompt = ScorerPrompt(Price(ARCHITECTURE, 100), 10, 0, 100)
    upstream = cast("Upstream", Answers(answer))
    return (await RewardModel(upstream, "rm", "classify", [], prompt, {}).score("text", None, 5)).value


async def test_a_score_is_the_last_class() -> None:
    assert await score([0.25, 0.75]) == 0.75


@pytest.mark.parametrize("probs", [None, [], "high", [float("nan")], [float("inf")], [10**400], [{}]])
async def test_what_is_no_score_is_said_to_be_none(probs: Any) -> None:
    with pytest.raises(ScorerFailed, match="the reward model 'rm' does not answer as vLLM's /classify"):
        await score(probs)
