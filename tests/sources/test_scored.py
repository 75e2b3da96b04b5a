import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fleet.clock import simulate
from kinetics_serve.budgeted.bill import bill
from kinetics_serve.cost import ZERO, Cost, Price
from kinetics_serve.runner.live import drive
from kinetics_serve.runner.run import Ended, Extra, Run
from kinetics_serve.scorers.scorer import Score, ScorerFailed, ScorerPrompt
from kinetics_serve.sources.scored import ScoredSource
from kinetics_serve.strategies.best_of_n import BestOfN
from kinetics_serve.strategies.state import Sample, Status
from tests.arms import arm_of
from tests.synthetic import ARCHITECTURE

PRICE = Price(ARCHITECTURE, 300.0)


class Texts:
    """Samples of random lengths; the even ones are cut off."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        yield 0
        tokens = self.chance.randint(1, sample.max_tokens)
        await asyncio.sleep(0)
        yield tokens
        status = Status.FINISHED if sample.index % 2 else Status.TRUNCATED
        yield Ended(status, tokens, 0, "a", 5.0, False)


class LengthScorer:
    """Prefers long texts. slow_from: the first sample that it never gets done with."""

    def __init__(self, prompt: ScorerPrompt, slow_from: int) -> None:
        self.prompt = prompt
        self.slow_from = slow_from
        self.spent: list[Cost] = []
        self.calls = 0

    def worst_case(self, tokens: int) -> Cost:
        return self.prompt.worst_case(tokens)

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        self.calls += 1
        await asyncio.sleep(0 if self.calls < self.slow_from else 60)
        self.spent.append(self.prompt.settle(tokens, {"prompt_tokens": tokens}))
        return Score(float(tokens), self.spent[-1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), worth=st.floats(0.5, 9), generated=st.integers(0, 4), slow_from=st.integers(1, 6))
def test_scores_are_paid_for_within_the_budget_even_where_a_deadline_ends_them(
    seed: int, worth: float, generated: int, slow_from: int
) -> None:
    scorer = LengthScorer(ScorerPrompt(PRICE, 70, generated, 8192), slow_from)
    arm = replace(arm_of(50, 40, 8, price=PRICE), extra=scorer.worst_case)
    budget = int(worth * arm.worst_case(40))
    run = Run(BestOfN(), [arm], budget)
    simulate(drive(run, ScoredSource(Texts(seed), scorer, lambda index: "text"), deadline_s=0.05))
    assert run.account.spent <= budget
    assert run.account.reserved == 0
    total = sum(scorer.spent, Cost())
    assert run.extras.scored.compute_flops >= total.compute_flops
    if scorer.calls < slow_from:
        assert run.extras.cost == total
    else:
        assert run.extras.cost != total  # what was being scored is charged at its most
    assert run.finish is not None


def test_a_sample_that_was_cut_off_is_not_scored_and_the_highest_score_wins() -> None:
    scorer = LengthScorer(ScorerPrompt(PRICE, 70, 1, 8192), 99)
    arm = replace(arm_of(50, 40, 8, price=PRICE), extra=scorer.worst_case)
    run = Run(BestOfN(), [arm], 8 * arm.worst_case(40))
    finish = asyncio.run(drive(run, ScoredSource(Texts(1), scorer, lambda index: "text")))
    finished = [sample for sample in run.samples if sample.status is Status.FINISHED]
    assert scorer.calls == len(finished) == 4
    assert finish.winner == max(finished, key=lambda sample: sample.tokens).index
    assert [sample.score for sample in finished] == [float(sample.tokens) for sample in finished]


class Finite:
    """Every sample is finished."""

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        yield 0
        yield Ended(Status.FINISHED, 5, 0, "a", 5.0, False)


class ExtremeScorer:
    def __init__(self, scores: list[float]) -> None:
        self.scores = iter(scores)

    def worst_case(self, tokens: int) -> Cost:
        return ZERO

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        return Score(next(self.scores))


@pytest.mark.parametrize("extreme", [inf, -inf, nan, 1.7e308, -1e101])
def test_a_score_that_cannot_be_reckoned_with_fails_its_sample_alone(extreme: float) -> None:
    arm = arm_of(20, 64, 3)
    run = Run(BestOfN(), [arm], 10 * arm.worst_case(64))
    finish = asyncio.run(drive(run, ScoredSource(Finite(), ExtremeScorer([0.5, extreme, 0.7]), lambda index: "text")))
    assert [sample.status for sample in run.samples] == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert finish.winner == 2
    assert isinstance(run.failures[1], ScorerFailed)


class Forced:
    """Every sample's answer was forced, in 7 tokens, and then grouped."""

    extra = Extra(PRICE.prefill(50), PRICE.prefill(30), forced_tokens=7)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]:
        yield 0
        yield 5
        yield self.extra
        yield Ended(Status.FINISHED, 5, 0, "a", 5.0, False, self.extra)


class BreakingScorer:
    """Scores the first answer, breaks at the second, and never gets done with the third."""

    def __init__(self) -> None:
        self.calls = 0

    def worst_case(self, tokens: int) -> Cost:
        return PRICE.prefill(10)

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        self.calls += 1
        if self.calls == 2:
            raise ScorerFailed("broken")
        await asyncio.sleep(60 if self.calls == 3 else 0)
        return Score(1.0, PRICE.prefill(2))


def test_what_forcing_and_grouping_cost_is_shown_as_that_where_scoring_fails_or_is_cut_short() -> None:
    scorer = BreakingScorer()
    arm = replace(arm_of(50, 40, 3, price=PRICE), extra=lambda tokens: PRICE.prefill(50 + 30 + 10))
    run = Run(BestOfN(), [arm], 3 * arm.worst_case(40))
    simulate(drive(run, ScoredSource(Forced(), scorer, lambda index: "text"), deadline_s=0.1))
    assert [sample.status for sample in run.samples] == [Status.FINISHED, Status.FAILED, Status.CANCELLED]
    shown = bill(run, "judge", forces=True, meaning="judge")
    assert shown["forced"] == {"completion_tokens": 3 * 7, "spent_eflops": PRICE.eflops(_times(3, PRICE.prefill(50)))}
    assert shown["meaning"]["spent_eflops"] == PRICE.eflops(_times(3, PRICE.prefill(30)))
    scored = PRICE.prefill(2) + _times(2, PRICE.prefill(10))
    assert shown["scorer"]["spent_eflops"] == PRICE.eflops(scored)
    assert run.account.spent <= run.account.budget


def _times(count: int, cost: Cost) -> Cost:
    return sum([cost] * count, ZERO)
