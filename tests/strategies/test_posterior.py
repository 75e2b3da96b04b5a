import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.strategies.posterior import lead_posterior, more_votes_needed
from kinetics_serve.strategies.votes import lead_confidence


@pytest.mark.parametrize("leader", [0, 1, 4, 11, 60])
def test_an_unopposed_leader_has_the_confidence_of_two_answers(leader: int) -> None:
    assert lead_posterior([leader]) == pytest.approx(lead_confidence(leader, 0), abs=1e-3)


@pytest.mark.parametrize("votes", [[3, 1], [4, 3, 2, 1], [2, 2, 2], [9, 1, 1, 1, 1], [5.5, 2.25, 0.75]])
def test_the_posterior_is_the_share_of_dirichlet_draws_that_the_leader_wins(votes: list[float]) -> None:
    chance = random.Random(0)
    draws = [[chance.gammavariate(vote + 1, 1) for vote in [*votes, 0]] for _ in range(40_000)]
    share = sum(draw[0] == max(draw) for draw in draws) / len(draws)
    assert lead_posterior(votes) == pytest.approx(share, abs=0.01)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=6))
def test_it_is_never_surer_than_the_comparison_with_the_runner_up_alone(counts: list[int]) -> None:
    leader, runner_up, *_ = ranked = sorted(counts, reverse=True)
    assert lead_posterior(ranked) <= lead_confidence(leader, runner_up) + 1e-3


@given(st.lists(st.integers(0, 8), max_size=4), st.floats(0.5, 0.99))
def test_votes_needed_are_the_fewest_that_suffice(counts: list[int], confidence: float) -> None:
    votes = sorted(counts, reverse=True)
    needed = more_votes_needed(tuple(votes), confidence, limit=64)
    first, others = (votes[0], votes[1:]) if votes else (0, [])
    assert lead_posterior([first + needed, *others]) >= confidence
    assert needed == 0 or lead_posterior([first + needed - 1, *others]) < confidence
