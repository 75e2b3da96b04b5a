"""From a stated budget to a policy and the arms it runs on."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic

from kinetics_serve.planner.budget import Budget, BudgetTooSmall, minimum
from kinetics_serve.planner.choose import ArmT, Choice
from kinetics_serve.strategies.auto import SINGLE, auto, why_single
from kinetics_serve.strategies.spec import AUTO, policy_of
from kinetics_serve.strategies.state import Policy


@dataclass(frozen=True, slots=True)
class Plan(Generic[ArmT]):
    """What to run: a policy, the arms of its samples, and the budget in eFLOPs."""

    policy: Policy
    arms: tuple[ArmT, ...]
    budget: int
    choice: Choice[ArmT] | None = None
    """Where a calibration decided: what it expects."""
    notes: tuple[str, ...] = ()
    """What the client should know of it."""

    @property
    def full_length_samples(self) -> int:
        """Samples of max_tokens on the first arm that the budget covers in the worst case."""
        arm = self.arms[0]
        return min(arm.max_samples, self.budget // arm.full_length)

    @classmethod
    def of(cls, choice: Choice[ArmT], eflops: int) -> "Plan[ArmT]":
        """A choice of a calibration's, to be run with a budget of at least what it reserves."""
        return cls(choice.policy, choice.arms, eflops, choice)


def plan(
    strategy: str,
    budget: Budget,
    arm: ArmT,
    *,
    stop_confidence: float | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    greedy: bool = False,
) -> Plan[ArmT]:
    """The plan for a budget on one arm, without a calibration.

    stop_confidence, options: of the strategy, see `policy_of`, whose errors this raises too. greedy: decoding without
    randomness. Raises BudgetTooSmall.
    """
    eflops = budget.eflops(arm)
    if eflops < minimum(arm):
        raise BudgetTooSmall(eflops, minimum(arm), arm.prompt_tokens)
    notes: tuple[str, ...] = ()
    if strategy == AUTO:
        strategy = auto(arm, eflops, greedy)
        if strategy == SINGLE:
            notes = (why_single(arm, eflops, greedy),)
    return Plan(policy_of(strategy, options, stop_confidence), (arm,), eflops, notes=notes)
