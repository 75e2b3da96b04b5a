import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.strategies.state import Sample, Status, Vote
from kinetics_serve.strategies.votes import lead_confidence, tally, votes_needed


def sample(index: int, answer: str | None, score: float = 1.0, status: Status = Status.FINISHED) -> Sample:
    return Sample(index, 64, status, 10, answer, score, empty=False)


def test_only_finished_samples_with_an_answer_vote() -> None:
    samples = [
        sample(0, "a"),
        sample(1, None),
        sample(2, "a", status=Status.TRUNCATED),
        sample(3, "a", status=Status.CANCELLED),
        sample(4, "b", 5.0),
    ]
    assert tally(samples) == (Vote("b", 1, 5.0), Vote("a", 1, 1.0))


def test_the_most_votes_lead_then_weight_then_the_sample_that_started_first() -> None:
    votes = tally([sample(0, "a", 9.0), sample(1, "b"), sample(2, "b"), sample(3, "c", 2.0)])
    assert [vote.answer for vote in votes] == ["b", "a", "c"]
    tied = [sample(3, "a"), sample(1, "z"), sample(2, "m")]
    assert [vote.answer for vote in tally(tied)] == [vote.answer for vote in tally(tied[::-1])] == ["z", "m", "a"]


@pytest.mark.parametrize("confidence", [0.1, 0.5])
def test_no_confidence_is_so_low_that_no_vote_is_needed(confidence: float) -> None:
    assert votes_needed(0, 0, confidence, limit=8) == 1


def numeric_beta_tail(leader: int, runner_up: int, steps: int = 20_000) -> float:
    """The mass above 1/2 of Beta(leader + 1, runner_up + 1), by the midpoint rule."""
    points = [(i + 0.5) / steps for i in range(steps)]
    density = [p**leader * (1 - p) ** runner_up for p in points]
    return sum(d for p, d in zip(points, density, strict=True) if p > 0.5) / sum(density)


@pytest.mark.parametrize(("leader", "runner_up"), [(0, 0), (1, 0), (4, 0), (3, 2), (5, 5), (7, 3), (20, 12)])
def test_confidence_is_the_beta_posterior_above_one_half(leader: int, runner_up: int) -> None:
    assert lead_confidence(leader, runner_up) == pytest.approx(numeric_beta_tail(leader, runner_up), abs=1e-6)


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.5, 0.999))
def test_votes_needed_is_the_least_number_that_suffices(leader: int, runner_up: int, confidence: float) -> None:
    needed = votes_needed(leader, runner_up, confidence, limit=200)
    assert lead_confidence(leader + needed, runner_up) >= confidence
    assert needed <= (0 if leader else 1) or lead_confidence(leader + needed - 1, runner_up) < confidence


def test_a_thousand_votes_are_weighed_in_no_time() -> None:
    start = time.process_time()
    assert votes_needed(0, 0, 1.0, limit=1024) == 1024
    assert votes_needed(500, 490, 0.99, limit=1024) < 1024
    assert time.process_time() - start < 1


def test_certainty_is_never_reached_by_votes() -> None:
    assert votes_needed(30, 0, 1.0, limit=32) == 32
