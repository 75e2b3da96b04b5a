"""What plans promised against what came of them: whether a task has drifted from its calibration. Pure.

The right answers aren't known while serving. What a request spent is, and so is the share of its votes that say what
its answer says.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Literal, Self

from kinetics_serve.planner.choose import ArmT
from kinetics_serve.planner.plan import Plan
from kinetics_serve.traces.intervals import Interval

MIN_REQUESTS = 50
"""Fewer say too little of a mean."""

RECENT_REQUESTS = 1000
"""As many count, so that a task that held for a year and drifts today is noticed today."""

DEVIATIONS = 3.0
"""Standard errors of a mean. More than usual, because it is looked at again after every request."""

TOLERANCE = 0.05
"""Of what was expected to be spent, and of the votes: less is not worth a new calibration."""

SAME_BUDGET = 1.1
"""A request may reserve so many times what its plan reserves: with more, it spends and agrees as nobody measured."""

Figure = Literal["spend", "agreement"]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a calibration lets a request expect."""

    eflops: float
    """On average."""
    spend: Interval
    """In units of `eflops`."""
    agreement: Interval | None
    """Of the votes with the answer, from 0 to 1; None where the calibration did not keep that."""

    @classmethod
    def of(cls, plan: Plan[ArmT]) -> Self | None:
        """None where no calibration decided, or where the request adds something that was not measured: more budget,
        or work on its samples that costs beside them."""
        choice = plan.choice
        if choice is None or plan.budget > SAME_BUDGET * choice.budget or any(arm.extra for arm in plan.arms):
            return None
        spent = choice.point.spent
        most = spent.high / spent.mean * plan.budget / choice.budget  # a budget above the plan's may be spent as well
        return cls(choice.expected, Interval(1.0, spent.low / spent.mean, most), choice.point.agreement)


@dataclass(frozen=True, slots=True)
class Drift:
    """A figure of recent requests that is not what their plans expected."""

    figure: Figure
    expected: Interval
    came: Interval
    requests: int


class PlanRecord:
    """What was expected of recent requests, and what came of them."""

    def __init__(self) -> None:
        self._recent: dict[Figure, deque[tuple[Interval, float]]] = {
            "spend": deque(maxlen=RECENT_REQUESTS),
            "agreement": deque(maxlen=RECENT_REQUESTS),
        }

    def add(self, promise: Promise, spent: float, agreement: float) -> None:
        """spent: eFLOPs. agreement: of the votes with the answer, 0 where nobody voted."""
        self._recent["spend"].append((promise.spend, spent / promise.eflops))
        if promise.agreement is not None:
            self._recent["agreement"].append((promise.agreement, agreement))

    def drifts(self) -> Iterator[Drift]:
        """The figures whose mean, give or take DEVIATIONS standard errors, is off what was calibrated by more than
        TOLERANCE."""
        for figure, recent in self._recent.items():
            if len(recent) < MIN_REQUESTS:
                continue
            expected = Interval(*[fmean(ends) for ends in zip(*[_ends(each) for each, _ in recent], strict=True)])
            came = _interval([value for _, value in recent])
            if came.low > expected.high + TOLERANCE or came.high < expected.low - TOLERANCE:
                yield Drift(figure, expected, came, len(recent))


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _interval(values: list[float]) -> Interval:
    mean = fmean(values)
    variance = sum([(value - mean) ** 2 for value in values]) / (len(values) - 1)
    reach = DEVIATIONS * sqrt(variance / len(values))
    return Interval(mean, mean - reach, mean + reach)
