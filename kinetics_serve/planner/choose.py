"""The plan for a budget or for an accuracy, from a calibration. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from kinetics_serve.planner.calibration import Calibration, ServedPoint
from kinetics_serve.planner.plan import Plan, policy_of
from kinetics_serve.runner.run import Terms

TermsOf = Callable[[ServedPoint], Terms | None]
"""The terms of a request run as a point says, its max_tokens the point's; None where it can't be run so."""


class AccuracyOutOfReach(Exception):
    """No calibrated way of spending is expected to be so accurate. `most`: what the most accurate one is."""

    def __init__(self, accuracy: float, most: float | None) -> None:
        promise = (
            "the calibration has nothing that fits this request"
            if most is None
            else f"the most that can be promised is {most:.3f}"
        )
        super().__init__(f"an accuracy of {accuracy:g} is out of reach: {promise}")
        self.most = most


@dataclass(frozen=True, slots=True)
class Choice:
    """A calibrated way of spending, for one prompt.

    budget: eFLOPs to reserve for it. expected: eFLOPs that it spends on average, by the calibration's share.
    """

    point: ServedPoint
    terms: Terms
    budget: int
    expected: float

    def plan(self, eflops: int) -> Plan:
        """To be run with a budget of `eflops`, at least `budget`."""
        policy = policy_of(self.point.strategy, self.terms, eflops, self.point.stop_confidence, greedy=False)
        return Plan(policy, self.terms, eflops, self)


def choose_for_budget(calibration: Calibration, eflops: int, terms_of: TermsOf) -> Choice | None:
    """The choice with the highest expected accuracy within a budget in eFLOPs; the cheaper one among equals."""
    within = [choice for choice in _choices(calibration, terms_of) if choice.budget <= eflops]
    return max(within, key=lambda choice: (choice.point.accuracy.mean, -choice.expected), default=None)


def choose_for_accuracy(calibration: Calibration, accuracy: float, terms_of: TermsOf) -> Choice:
    """The choice that is expected to spend least among those expected to be so accurate (0 to 1).

    Raises AccuracyOutOfReach.
    """
    choices = list(_choices(calibration, terms_of))
    enough = [choice for choice in choices if choice.point.accuracy.mean >= accuracy]
    if not enough:
        raise AccuracyOutOfReach(accuracy, max((choice.point.accuracy.mean for choice in choices), default=None))
    return min(enough, key=lambda choice: (choice.expected, -choice.point.accuracy.mean))


def fitting(calibration: Calibration, model: str, terms: Terms) -> TermsOf:
    """For a request to `model`: the points recorded of it, with the request's KV policy, no longer and with no more
    samples than the request allows. What eFLOPs cost is the request's own price.
    """

    def terms_of(point: ServedPoint) -> Terms | None:
        if point.model != model or point.kv != terms.kv or point.max_tokens > terms.max_tokens:
            return None
        samples = min(terms.max_samples, point.max_samples)
        if point.samples_worth > samples:
            return None
        return replace(terms, max_tokens=point.max_tokens, max_samples=samples)

    return terms_of


def _choices(calibration: Calibration, terms_of: TermsOf) -> Iterator[Choice]:
    for point in calibration.served:
        terms = terms_of(point)
        if terms is not None:
            budget = int(point.samples_worth * terms.worst_case(point.max_tokens))
            yield Choice(point, terms, budget, budget * point.spent.mean / point.budget)
