import random
from dataclasses import replace

import pytest

from kinetics_serve.planner.choose import Choice
from kinetics_serve.planner.drift import MIN_REQUESTS, RECENT_REQUESTS, PlanRecord, Promise
from kinetics_serve.planner.plan import Plan
from kinetics_serve.traces.intervals import Interval
from tests.planner.test_choose import fits, served

PROMISE = Promise(1e9, Interval(1.0, 0.8, 1.2), Interval(0.7, 0.6, 0.8))


def record(requests: int, spend: float = 1.0, agreement: float = 0.7, seed: int = 0) -> PlanRecord:
    """Of requests that spend, and agree, so much on average."""
    chance, kept = random.Random(seed), PlanRecord()
    for _ in range(requests):
        kept.add(PROMISE, PROMISE.eflops * spend * chance.uniform(0.5, 1.5), agreement + chance.uniform(-0.2, 0.2))
    return kept


@pytest.mark.parametrize("seed", range(20))
def test_what_comes_as_calibrated_is_no_drift_however_long_it_is_watched(seed: int) -> None:
    assert not any(list(record(requests, 1.15, 0.62, seed).drifts()) for requests in range(50, 1000, 50))


@pytest.mark.parametrize("spend", [0.5, 1.6])
def test_spending_less_or_more_than_calibrated_is_drift(spend: float) -> None:
    (drift,) = record(400, spend=spend).drifts()
    assert (drift.figure, drift.requests) == ("spend", 400)
    assert drift.came.low < spend < drift.came.high
    assert drift.expected == PROMISE.spend


def test_votes_that_agree_less_than_calibrated_are_drift() -> None:
    (drift,) = record(400, agreement=0.4).drifts()
    assert drift.figure == "agreement"


def test_a_few_requests_are_never_drift() -> None:
    assert not list(record(MIN_REQUESTS - 1, spend=9).drifts())
    assert list(record(MIN_REQUESTS, spend=9).drifts())


def test_a_long_time_that_held_hides_no_drift_of_today() -> None:
    kept = record(50 * RECENT_REQUESTS)
    assert not list(kept.drifts())
    for _ in range(RECENT_REQUESTS):
        kept.add(PROMISE, 2 * PROMISE.eflops, 0.7)
    assert [drift.figure for drift in kept.drifts()] == ["spend"]


def test_a_calibration_without_agreement_is_watched_for_its_spend() -> None:
    kept = PlanRecord()
    for _ in range(100):
        kept.add(replace(PROMISE, agreement=None), 3e9, 0.0)
    assert [drift.figure for drift in kept.drifts()] == ["spend"]


def test_a_plan_promises_its_points_share_of_what_it_reserves() -> None:
    point = replace(served(0.6, 4), spent=Interval(4e8, 3e8, 6e8), agreement=Interval(0.7, 0.6, 0.8))
    choice = Choice(point, (fits(point.arm),), 1000, 400.0)
    promise = Promise.of(Plan.of(choice, 1000))
    assert promise is not None
    assert promise.eflops == 400
    assert (promise.spend.low, promise.spend.high) == pytest.approx((0.75, 1.5))
    assert promise.agreement == point.agreement
    little_more = Promise.of(Plan.of(choice, 1050))
    assert little_more is not None
    assert little_more.spend.high == pytest.approx(1.5 * 1.05)


def test_nothing_is_promised_where_more_may_be_spent_than_was_measured_or_nothing_was() -> None:
    point = served(0.6, 4)
    choice = Choice(point, (fits(point.arm),), 1000, 400.0)
    assert Promise.of(Plan.of(choice, 1200)) is None
    assert Promise.of(replace(Plan.of(choice, 1000), choice=None)) is None
