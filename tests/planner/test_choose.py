from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, HardwareProfile
from kinetics_serve.planner.calibration import CalibratedArm, Calibration, ServedPoint
from kinetics_serve.planner.choose import AccuracyOutOfReach, choose_for_accuracy, choose_for_budget
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.traces.intervals import Interval
from tests.arms import arm_of
from tests.synthetic import ARCHITECTURE

HARDWARE = HardwareProfile("test", 300.0, 1.0, "a test")
VOTE = {"stop_confidence": 0.95}


def served(accuracy: float, worth: float, share: float = 0.5, max_tokens: int = 100) -> ServedPoint:
    spent = Interval(share * 1e9, share * 1e9, share * 1e9)
    arms = (CalibratedArm("tiny", DENSE, max_tokens, 16),)
    return ServedPoint(arms, "majority_vote", VOTE, worth, 1e9, spent, Interval(accuracy, 0, 1), 4)


def calibration(*points: ServedPoint) -> Calibration:
    return Calibration("t", HARDWARE, 10, {"tiny": ARCHITECTURE}, (), points, ())


def fits(arm: CalibratedArm) -> Arm:
    return arm_of(50, arm.max_tokens, arm.max_samples, arm.kv)


ONE = fits(served(0, 1).arm).full_length
KNOWN = calibration(served(0.4, 1), served(0.6, 4), served(0.6, 4, share=0.2), served(0.7, 16), served(0.5, 8))


def test_a_budget_buys_the_most_accurate_way_within_it_and_the_cheaper_of_equals() -> None:
    choice = choose_for_budget(KNOWN, 10 * ONE, fits)
    assert choice is not None
    assert (choice.point.accuracy.mean, choice.point.samples_worth) == (0.6, 4)
    assert choice.expected == pytest.approx(0.2 * 4 * ONE)


def test_a_budget_below_everything_buys_nothing() -> None:
    assert choose_for_budget(KNOWN, ONE - 1, fits) is None


def test_an_accuracy_gets_the_cheapest_way_expected_to_reach_it() -> None:
    choice = choose_for_accuracy(KNOWN, 0.55, fits)
    assert choice.expected == pytest.approx(0.2 * 4 * ONE)
    assert choice.budget == 4 * ONE


def test_an_accuracy_out_of_reach_says_the_most_that_can_be_promised() -> None:
    with pytest.raises(AccuracyOutOfReach, match=r"0\.700") as error:
        choose_for_accuracy(KNOWN, 0.8, fits)
    assert error.value.most == 0.7


def test_ways_that_do_not_fit_the_request_are_not_chosen() -> None:
    long = served(0.9, 1, max_tokens=4000)
    short = lambda arm: fits(arm) if arm.max_tokens <= 100 else None  # noqa: E731
    choice = choose_for_budget(calibration(long, served(0.4, 1)), 10**15, short)
    assert choice is not None
    assert choice.point.accuracy.mean == 0.4
    with pytest.raises(AccuracyOutOfReach, match="nothing that fits"):
        choose_for_accuracy(calibration(long), 0.1, short)


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_larger_budget_never_expects_less(a: int, b: int) -> None:
    small, large = (choose_for_budget(KNOWN, worth * ONE, fits) for worth in sorted((a, b)))
    assert small is not None
    assert large is not None
    assert small.budget <= a * ONE or small.budget <= b * ONE
    assert large.point.accuracy.mean >= small.point.accuracy.mean


def paired(strategy: str, by_question: list[float], max_tokens: int = 100) -> ServedPoint:
    mean = sum(by_question) / len(by_question)
    return replace(served(mean, 4, max_tokens=max_tokens), strategy=strategy, by_question=tuple(by_question))


PLAIN = [0.5, 0.4, 0.6, 0.5] * 8


def test_the_plain_vote_stands_against_what_may_have_been_lucky() -> None:
    plain = paired("majority_vote", PLAIN)
    lucky = paired("best_of_n", [1.0, 0.0, 1.0, 0.2] * 8)
    assert lucky.accuracy.mean > plain.accuracy.mean
    choice = choose_for_budget(calibration(lucky, plain), 10**15, fits)
    assert choice is not None
    assert choice.point == plain


def test_what_was_better_question_by_question_replaces_the_plain_vote() -> None:
    plain = paired("majority_vote", PLAIN)
    better = paired("best_of_n", [accuracy + 0.05 + 0.01 * (number % 2) for number, accuracy in enumerate(PLAIN)], 50)
    choice = choose_for_budget(calibration(plain, better), 10**15, fits)
    assert choice is not None
    assert choice.point == better


def test_an_accuracy_is_not_entrusted_to_what_is_cheap_by_luck() -> None:
    plain = paired("majority_vote", PLAIN)
    lucky = paired("race", [1.0, 0.0, 1.0, 0.2] * 8, max_tokens=50)
    assert lucky.accuracy.mean > 0.49
    assert choose_for_accuracy(calibration(lucky, plain), 0.49, fits).point == plain


def test_an_accuracy_gets_what_is_cheaper_and_as_good_question_by_question() -> None:
    plain = paired("majority_vote", PLAIN)
    better = paired("best_of_n", [accuracy + 0.01 * (number % 2) for number, accuracy in enumerate(PLAIN)], 50)
    assert choose_for_accuracy(calibration(plain, better), 0.49, fits).point == better


def test_an_accuracy_that_no_plain_vote_reaches_gets_the_cheapest_that_does() -> None:
    other, dear = paired("best_of_n", [0.8, 0.6] * 16, 50), paired("best_of_n", [0.8, 0.7] * 16)
    choice = choose_for_accuracy(calibration(paired("majority_vote", PLAIN), dear, other), 0.65, fits)
    assert choice.point == other
