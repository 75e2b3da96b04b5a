"""The plan for a budget or for an accuracy, from a calibration. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from statistics import stdev

from kinetics_serve.cost import KVPolicy, Price
from kinetics_serve.errors import KineticsError
from kinetics_serve.planner.calibration import Calibration, ServedPoint, Stage
from kinetics_serve.planner.plan import Plan, policy_of
from kinetics_serve.runner.run import Terms
from kinetics_serve.strategies.cascade import Cascade
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.state import Policy

MIN_PAIRS = 2
"""Questions: fewer have no standard error."""

PLAIN_VOTES = ("self_consistency", "majority_vote", "race")

TermsOf = Callable[[Stage], Terms | None]
"""The terms of a request run as a stage says, with no more samples than it, of its max_tokens; None where it can't be
run so.
"""


class AccuracyOutOfReach(KineticsError):
    """No calibrated way of spending is expected to be so accurate. `most`: what the most accurate one is."""

    status = 400
    code = "invalid_request"
    param = "kinetics.budget.accuracy"

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

    terms: of each of its stages. budget: eFLOPs to reserve for it. expected: eFLOPs that it spends on average, by the
    calibration's share.
    """

    point: ServedPoint
    terms: tuple[Terms, ...]
    budget: int
    expected: float

    def plan(self, eflops: int) -> Plan:
        """To be run with a budget of `eflops`, at least `budget`."""
        first, *others = self.terms
        return Plan(policy_at(self.point, first), first, eflops, self, tuple(others))


def policy_at(point: ServedPoint, terms: Terms) -> Policy:
    """The policy that a point was measured with."""
    if point.strategy != "cascade":
        return policy_of(
            point.strategy, terms, 0, point.stop_confidence, greedy=False, deciding_votes=point.deciding_votes
        )
    vote = MajorityVote(point.stop_confidence)
    return Cascade((vote, vote), point.escalate_below)


def choose_for_budget(calibration: Calibration, eflops: int, terms_of: TermsOf) -> Choice | None:
    """The choice for a budget in eFLOPs: what is expected to be most accurate, by more than luck.

    The highest of many measured accuracies is the luckiest too. So the plain way of spending the budget, a majority
    vote of as many and as long samples as it covers, stands unless another was better on the same questions by more
    than the standard error of the difference. Where points can't be compared in pairs: the highest accuracy, the
    cheaper one among equals.
    """
    within = [choice for choice in _choices(calibration, terms_of) if choice.budget <= eflops]
    plain = max(
        (choice for choice in within if choice.point.strategy == "majority_vote"),
        key=lambda choice: (choice.point.max_tokens, choice.budget, choice.point.stop_confidence),
        default=None,
    )
    if plain is None or any(len(choice.point.by_question) < MIN_PAIRS for choice in within):
        return max(within, key=lambda choice: (choice.point.accuracy.mean, -choice.expected), default=None)
    return max(within, key=lambda choice: (_edge(choice.point, plain.point), choice is plain, -choice.expected))


def choose_for_accuracy(calibration: Calibration, accuracy: float, terms_of: TermsOf) -> Choice:
    """The choice that is expected to spend least among those expected to be so accurate (0 to 1), by more than luck.

    The cheapest of many that seem accurate enough is the luckiest too. So the cheapest plain vote that reached it with
    samples of full length stands, unless a cheaper choice reached it even less the standard error of the difference
    between the two on the same questions. Raises AccuracyOutOfReach.
    """
    choices = list(_choices(calibration, terms_of))
    enough = [choice for choice in choices if choice.point.accuracy.mean >= accuracy]
    if not enough:
        raise AccuracyOutOfReach(accuracy, max((choice.point.accuracy.mean for choice in choices), default=None))
    full: dict[tuple[str, KVPolicy], int] = {}
    for choice in choices:
        arm = choice.point.model, choice.point.kv
        full[arm] = max(choice.point.max_tokens, full.get(arm, 0))
    votes = [choice for choice in enough if choice.point.strategy in PLAIN_VOTES]
    plain = min(
        [each for each in votes if each.point.max_tokens == full[each.point.model, each.point.kv]],
        key=_thrift,
        default=None,
    )
    if plain is None:
        return min(enough, key=_thrift)
    sure = [each for each in enough if each.point.accuracy.mean - _error(each.point, plain.point) >= accuracy]
    return min(sure, key=_thrift)


def _thrift(choice: Choice) -> tuple[float, float]:
    return choice.expected, -choice.point.accuracy.mean


def _edge(point: ServedPoint, plain: ServedPoint) -> float:
    """By how much a point is more accurate than the plain one, less the standard error of that."""
    return point.accuracy.mean - plain.accuracy.mean - _error(point, plain)


def _error(point: ServedPoint, plain: ServedPoint) -> float:
    """The standard error of the difference of two accuracies; 0 for the plain one itself.

    Where they were not measured on the same questions: what the point's interval reaches down.
    """
    if point is plain:
        return 0.0
    if len(point.by_question) < MIN_PAIRS or len(point.by_question) != len(plain.by_question):
        return point.accuracy.mean - point.accuracy.low
    differences = [a - b for a, b in zip(point.by_question, plain.by_question, strict=True)]
    return stdev(differences) / sqrt(len(differences))


def fitting(offers: Mapping[tuple[str, KVPolicy], Terms]) -> TermsOf:
    """For a request that may run on these models and KV policies: stages no longer than the request allows, priced as
    the request's own.
    """

    def terms_of(stage: Stage) -> Terms | None:
        terms = offers.get((stage.model, stage.kv))
        if terms is None or stage.max_tokens > terms.max_tokens:
            return None
        return replace(terms, max_tokens=stage.max_tokens, max_samples=min(terms.max_samples, stage.max_samples))

    return terms_of


def at_recorded_lengths(
    calibration: Calibration, prompt_tokens: int, model: str | None = None, max_tokens: int | None = None
) -> TermsOf:
    """For a prompt of so many tokens on any of the calibration's models, or on one, with samples no longer than
    max_tokens.
    """

    def terms_of(stage: Stage) -> Terms | None:
        if model not in (None, stage.model) or (max_tokens is not None and stage.max_tokens > max_tokens):
            return None
        price = Price(calibration.architectures[stage.model], calibration.intensity)
        return Terms(price, prompt_tokens, stage.max_tokens, stage.max_samples, stage.kv)

    return terms_of


def _choices(calibration: Calibration, terms_of: TermsOf) -> Iterator[Choice]:
    for point in calibration.served:
        found = [terms_of(stage) for stage in point.stages]
        terms = tuple([each for each in found if each is not None])
        if len(terms) < len(found) or point.samples_worth > terms[0].max_samples:
            continue
        budget = int(point.samples_worth * terms[0].worst_case(terms[0].max_tokens))
        if point.second is not None:
            if terms[1].max_samples < point.second.max_samples:
                continue
            budget += point.second.max_samples * terms[1].worst_case(terms[1].max_tokens)
        yield Choice(point, terms, budget, budget * point.spent.mean / point.budget)
