"""The baseline: all samples at once, and the answer that most of them gave."""

from dataclasses import dataclass

from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.moves import affordable_launch
from kinetics_serve.strategies.spec import StrategySpec, one_trial
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """A fixed number of votes (Wang et al. 2022, arXiv 2203.11171): max_samples, or what the budget buys of them.

    It never stops early and never launches again, so N is decided before the first sample. What others are measured
    against.
    """

    name: str = "self_consistency"

    def decide(self, state: State) -> Action:
        if not state.samples:
            launch = affordable_launch(state, state.samples_left)
            if launch is not None:
                return launch
        if state.running:
            return Wait()
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return MajorityVote().conclude(state, reason)


SPEC = StrategySpec("self_consistency", lambda options: SelfConsistency(), trials=one_trial)
