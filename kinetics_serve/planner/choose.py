"""The plan for a budget or for an accuracy, from a calibration. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from statistics import stdev
from typing import Generic, TypeVar

from kinetics_serve.cost import Price
from kinetics_serve.errors import KineticsError
from kinetics_serve.planner.calibration import CalibratedArm, Calibration, ServedPoint
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.spec import policy_of
from kinetics_serve.strategies.state import Policy

MIN_PAIRS = 2
"""Questions: fewer have no standard error."""

PLAIN_VOTES = ("self_consistency", "majority_vote", "race")

ArmT = TypeVar("ArmT", bound=Arm)

ArmOf = Callable[[CalibratedArm], ArmT | None]
"""A request's own arm for a calibrated one: with no more samples than that, of its max_tokens, priced for the request's
prompt; None where the request can't run so.
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
class Choice(Generic[ArmT]):
    """A calibrated way of spending, for one prompt."""

    point: ServedPoint
    arms: tuple[ArmT, ...]
    budget: int
    """eFLOPs to reserve for it."""
    expected: float
    """eFLOPs that it spends on average, by the calibration's share."""

    @property
    def policy(self) -> Policy:
        """The one that the point was measured with."""
        return policy_of(self.point.strategy, self.point.options)


def choose_for_budget(calibration: Calibration, eflops: int, arm_of: ArmOf[ArmT]) -> Choice[ArmT] | None:
    """The choice for a budget in eFLOPs: what is expected to be most accurate, by more than luck.

    The highest of many measured accuracies is the luckiest too. So the plain way of spending the budget, a majority
    vote of as many and as long samples as it covers, stands unless another was better on the same questions by more
    than the standard error of the difference. Where points can't be compared in pairs: the highest accuracy, the
    cheaper one among equals.
    """
    within = [choice for choice in _choices(calibration, arm_of) if choice.budget <= eflops]
    plain = max(
        (choice for choice in within if choice.point.strategy == "majority_vote"),
        key=lambda choice: (
            choice.point.arm.max_tokens,
            choice.budget,
            choice.point.options.get("stop_confidence", 0.0),
        ),
        default=None,
    )
    if plain is None or any(len(choice.point.by_question) < MIN_PAIRS for choice in within):
        return max(within, key=lambda choice: (choice.point.accuracy.mean, -choice.expected), default=None)
    return max(within, key=lambda choice: (_edge(choice.point, plain.point), choice is plain, -choice.expected))


def least_budget(calibration: Calibration, arm_of: ArmOf[ArmT]) -> int | None:
    """eFLOPs below which `choose_for_budget` finds nothing; None where it never does."""
    return min((choice.budget for choice in _choices(calibration, arm_of)), default=None)


def choose_for_accuracy(calibration: Calibration, accuracy: float, arm_of: ArmOf[ArmT]) -> Choice[ArmT]:
    """The choice that is expected to spend least among those expected to be so accurate (0 to 1), by more than luck.

    The cheapest of many that seem accurate enough is the luckiest too. So the cheapest plain vote that reached it with
    samples of full length stands, unless a cheaper choice reached it even less the standard error of the difference
    between the two on the same questions. Raises AccuracyOutOfReach.
    """
    choices = list(_choices(calibration, arm_of))
    enough = [choice for choice in choices if choice.point.accuracy.mean >= accuracy]
    if not enough:
        raise AccuracyOutOfReach(accuracy, max((choice.point.accuracy.mean for choice in choices), default=None))
    full: dict[tuple[str, int | None], int] = {}
    for choice in choices:
        arm = choice.point.arm
        full[arm.key] = max(arm.max_tokens, full.get(arm.key, 0))
    votes = [choice for choice in enough if choice.point.strategy in PLAIN_VOTES]
    plain = min(
        [each for each in votes if each.point.arm.max_tokens == full[each.point.arm.key]],
        key=_thrift,
        default=None,
    )
    if plain is None:
        return min(enough, key=_thrift)
    sure = [each for each in enough if each.point.accuracy.mean - _error(each.point, plain.point) >= accuracy]
    return min(sure, key=_thrift)


def _thrift(choice: Choice[ArmT]) -> tuple[float, float]:
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


def fitting(arms: Mapping[tuple[str, int | None], ArmT]) -> ArmOf[ArmT]:
    """For a request that may run on these arms, by their keys: no longer samples than it allows."""

    def arm_of(calibrated: CalibratedArm) -> ArmT | None:
        arm = arms.get(calibrated.key)
        if arm is None or calibrated.max_tokens > arm.max_tokens:
            return None
        samples = min(arm.max_samples, calibrated.max_samples)
        return replace(arm, max_tokens=calibrated.max_tokens, max_samples=samples)

    return arm_of


def at_recorded_lengths(
    calibration: Calibration, prompt_tokens: int, model: str | None = None, max_tokens: int | None = None
) -> ArmOf[Arm]:
    """For a prompt of so many tokens on any of the calibration's models, or on one, with samples no longer than
    max_tokens, nor than the model's context has room for.
    """

    def arm_of(calibrated: CalibratedArm) -> Arm | None:
        name, longest = calibrated.model, calibrated.max_tokens
        if model not in (None, name) or (max_tokens is not None and longest > max_tokens):
            return None
        architecture = calibration.architectures[name]
        if architecture.max_context is not None and prompt_tokens + longest > architecture.max_context:
            return None
        price = Price.on(architecture, calibration.hardware)
        return Arm(name, calibrated.kv, price, prompt_tokens, longest, calibrated.max_samples)

    return arm_of


def _choices(calibration: Calibration, arm_of: ArmOf[ArmT]) -> Iterator[Choice[ArmT]]:
    for point in calibration.served:
        found = [arm_of(calibrated) for calibrated in point.arms]
        arms = tuple([arm for arm in found if arm is not None])
        if len(arms) < len(found) or point.samples_worth > arms[0].max_samples:
            continue
        later = list(zip(arms, point.arms, strict=True))[1:]
        if any(arm.max_samples < calibrated.max_samples for arm, calibrated in later):
            continue
        budget = int(point.samples_worth * arms[0].full_length)
        budget += sum([arm.max_samples * arm.full_length for arm, _ in later])
        yield Choice(point, arms, budget, budget * point.spent.mean / point.budget)
