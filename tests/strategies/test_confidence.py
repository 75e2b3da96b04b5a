from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.strategies.confidence import Confidence, token_confidence, window_tokens


@given(st.lists(st.floats(0, 20), min_size=1, max_size=60), st.integers(1, 8), st.floats(0, 20))
def test_the_lows_are_the_new_minima_of_the_sliding_windows(values: list[float], window: int, floor: float) -> None:
    running = Confidence(window)
    for value in values:
        running.add([-value])
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
    assert token_confidence([]) == 0.0


def test_a_group_is_a_sixteenth_of_the_longest_sample() -> None:
    assert [window_tokens(tokens) for tokens in (10, 100, 1024, 32768)] == [16, 16, 64, 2048]
