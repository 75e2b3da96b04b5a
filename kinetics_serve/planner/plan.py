"""From a stated budget to a policy and its terms."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from kinetics_serve.errors import KineticsError
from kinetics_serve.runner.run import Run, Terms
from kinetics_serve.strategies.auto import Auto
from kinetics_serve.strategies.best_of_n import BestOfN
from kinetics_serve.strategies.consensus import Consensus
from kinetics_serve.strategies.deepconf import DeepConf
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.race import Race
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.single import Single
from kinetics_serve.strategies.state import MIN_SAMPLE_TOKENS, Policy

if TYPE_CHECKING:
    from kinetics_serve.planner.choose import Choice

StrategyName = Literal[
    "auto", "single", "best_of_n", "majority_vote", "race", "consensus", "weighted_vote", "deepconf", "self_consistency"
]
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

    def eflops(self, terms: Terms) -> int:
        """The budget in whole eFLOPs, prompt included. A token costs its share of a sample of full length."""
        if self.unit == "eflops":
            return int(self.amount)
        amount = Fraction(self.amount)  # exact: 10 samples' worth is ten samples
        if self.unit == "samples":
            return int(amount * terms.dense_worst_case(terms.max_tokens))
        if amount < terms.max_tokens:
            return terms.dense_worst_case(int(amount))
        return int(amount / terms.max_tokens * terms.dense_worst_case(terms.max_tokens))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: a policy, what holds for each of its samples, and the budget in eFLOPs.

    choice: where a calibration decided, what it expects. others: the terms of a cascade's further stages.
    """

    policy: Policy
    terms: Terms
    budget: int
    choice: "Choice | None" = None
    others: tuple[Terms, ...] = ()

    @property
    def full_length_samples(self) -> int:
        """Samples of max_tokens that the budget covers in the worst case."""
        return min(self.terms.max_samples, self.budget // self.terms.worst_case(self.terms.max_tokens))


def minimum(terms: Terms) -> int:
    """The least budget, in eFLOPs, that is worth accepting."""
    return terms.worst_case(min(MIN_SAMPLE_TOKENS, terms.max_tokens))


def plan(strategy: StrategyName, budget: Budget, terms: Terms, stop_confidence: float, greedy: bool) -> Plan:
    """The plan for a budget. greedy: decoding without randomness. Raises BudgetTooSmall."""
    eflops = budget.eflops(terms)
    if eflops < minimum(terms):
        raise BudgetTooSmall(eflops, minimum(terms), terms.prompt_tokens)
    return Plan(policy_of(strategy, terms, eflops, stop_confidence, greedy), terms, eflops)


def policy_of(
    strategy: StrategyName,
    terms: Terms,
    eflops: int,
    stop_confidence: float,
    greedy: bool = False,
    deciding_votes: int | None = None,
) -> Policy:
    """The policy of that name; for `auto`, the one that suits the budget. deciding_votes: of a race."""
    if strategy == "auto":
        return Auto(stop_confidence, greedy).choose(Run(Single(), terms, eflops).state)
    policies: dict[str, Policy] = {
        "single": Single(),
        "best_of_n": BestOfN(),
        "majority_vote": MajorityVote(stop_confidence),
        "race": Race(stop_confidence, deciding_votes),
        "consensus": Consensus(stop_confidence),
        "weighted_vote": Consensus(stop_confidence, "confidence"),
        "deepconf": DeepConf(stop_confidence),
        "self_consistency": SelfConsistency(),
    }
    return policies[strategy]
