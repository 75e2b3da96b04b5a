import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.strategies.confidence import Confidence, token_confidence, window_tokens


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.integers(1, 8), st.floats(0, 20))
def test_the_lows_are_the_new_minima_of_the_sliding_windows(values: list[float], window: int, floor: float) -> None:
    running = Confidence(window)
    for value in values:
        running.add([-value, -value])
    means = {end: sum(values[end - window : end]) / window for end in range(window, len(values) + 1)}
    assert [token for token, _ in running.lows] == sorted(token for token, _ in running.lows)
    if means:
        assert abs(running.worst_window - min(means.values())) < 1e-9
        assert all(abs(means[token] - low) < 1e-9 for token, low in running.lows)
        below = [token for token, mean in means.items() if mean < floor - 1e-6]
        assert not below or running.below(floor)
    else:
        assert running.worst_window == running.mean
        assert not running.below(floor)


def test_a_token_is_as_confident_as_its_candidates_are_unlikely_beside_the_first() -> None:
    assert token_confidence([-0.1, -5.0, -6.9]) == 4.0


def test_candidates_that_a_grammar_forbids_or_that_are_missing_are_none() -> None:
    assert token_confidence([-0.1, -5.0, -6.9, -9999.0, float("-inf"), float("nan"), 1e308, None]) == 4.0


@pytest.mark.parametrize("logprobs", [[], [-5.0], [-5.0, -9999.0], [None], [float("-inf")]])
def test_a_lone_candidate_says_nothing(logprobs: list[float | None]) -> None:
    assert token_confidence(logprobs) is None


def test_a_sample_without_a_usable_confidence_loses_to_every_other() -> None:
    silent, unsure = Confidence(2), Confidence(2)
    for _ in range(4):
        silent.add([-5.0])
        unsure.add([-0.6, -0.9])
    assert (silent.tokens, silent.mean, silent.worst_window) == (4, 0.0, 0.0)
    assert unsure.mean > silent.mean
    assert unsure.worst_window > silent.worst_window


def test_tokens_without_a_usable_confidence_change_no_mean() -> None:
    running = Confidence(2)
    for logprobs in ([-1.0, -3.0], [-9999.0, -9999.0], [-1.0, -3.0], [-0.5]):
        running.add(logprobs)
    assert (running.tokens, running.mean, running.lows) == (4, 2.0, [(3, 2.0)])


def test_a_group_is_a_sixteenth_of_the_longest_sample() -> None:
    assert [window_tokens(tokens) for tokens in (10, 100, 1024, 32768)] == [16, 16, 64, 2048]
