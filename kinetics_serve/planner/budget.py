"""A budget as it is stated, in whole eFLOPs."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from kinetics_serve.errors import KineticsError
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.state import MIN_SAMPLE_TOKENS

BudgetUnit = Literal["eflops", "tokens", "samples"]


class BudgetTooSmall(KineticsError):
    """The budget does not cover one sample of MIN_SAMPLE_TOKENS. `minimum`: eFLOPs that would."""

    status = 400
    code = "budget_too_small"
    param = "kinetics.budget"

    def __init__(self, budget: int, minimum: int, prompt_tokens: int) -> None:
        super().__init__(
            f"a budget of {budget:.4g} eFLOPs does not cover one sample of {MIN_SAMPLE_TOKENS} tokens for this "
            f"prompt of {prompt_tokens} tokens: state at least {minimum} eFLOPs"
        )
        self.minimum = minimum


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount in a unit: eFLOPs, generated tokens, or samples of full length with dense attention."""

    unit: BudgetUnit
    amount: float
    raised: bool = False
    """To the least that is accepted, where it is below that."""

    def eflops(self, arm: Arm) -> int:
        """The budget in whole eFLOPs, prompt included. A token costs its share of a sample of full length."""
        eflops = self._eflops(arm)
        return max(eflops, minimum(arm)) if self.raised else eflops

    def _eflops(self, arm: Arm) -> int:
        if self.unit == "eflops":
            return int(self.amount)
        amount = Fraction(self.amount)  # exact: 10 samples' worth is ten samples
        if self.unit == "samples":
            return int(amount * arm.dense(arm.max_tokens))
        if amount < arm.max_tokens:
            return arm.dense(int(amount))
        return int(amount / arm.max_tokens * arm.dense(arm.max_tokens))


def minimum(arm: Arm) -> int:
    """The least budget, in eFLOPs, that is worth accepting."""
    return arm.worst_case(min(MIN_SAMPLE_TOKENS, arm.max_tokens))
