import random

import pytest

from kinetics_serve.traces.intervals import bootstrap, share


@pytest.mark.parametrize("questions", [1, 8, 30])
def test_all_right_or_all_wrong_does_not_make_certain(questions: int) -> None:
    right, wrong = share([[1.0, 1.0]] * questions), share([[0.0]] * questions)
    assert (right.mean, right.high) == (1.0, 1.0)
    assert (wrong.mean, wrong.low) == (0.0, 0.0)
    assert 1 - right.low == pytest.approx(wrong.high)
    # Wilson's bound: 3.84 / (n + 3.84).
    assert wrong.high == pytest.approx(1.96**2 / (questions + 1.96**2))


def test_one_question_says_little_of_others() -> None:
    found = share([[0.0, 1.0]])
    assert found.mean == 0.5
    assert found.low < 0.1
    assert found.high > 0.9


def test_questions_that_differ_are_resampled() -> None:
    results = [[1.0], [0.0], [1.0], [0.5]]
    assert share(results) == bootstrap(results)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Questions that a model is right on with chances between 0 and 1, many more of which it could have been asked."""
    chance, held = random.Random(0), 0
    for _ in range(200):
        results = []
        for _ in range(30):
            right = chance.betavariate(0.5, 0.5)
            results.append([float(chance.random() < right) for _ in range(8)])
        found = share(results)
        held += found.low <= 0.5 <= found.high
    assert 0.9 <= held / 200 <= 0.99
