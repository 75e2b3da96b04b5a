"""A strategy of one's own: the first answer that k samples agree on."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from kinetics_serve.strategies.moves import affordable_launch, best
from kinetics_serve.strategies.spec import Options, StrategySpec
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait


class FirstToKOptions(Options):
    k: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    """Samples that have to agree."""


@dataclass(frozen=True, slots=True)
class FirstToK:
    """Ends as soon as k samples have given the same answer, whatever the others said.

    It launches no more samples at a time than the leading answer is short of.
    """

    k: int = 3
    name: str = "first_to_k"

    def decide(self, state: State) -> Action:
        leader = state.votes[0].count if state.votes else 0
        if leader >= self.k:
            return self.conclude(state, "consensus")
        launch = affordable_launch(state, self.k - leader - state.running)
        if launch is not None:
            return launch
        if state.running:
            return Wait()
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        if not state.votes:
            return Finish(best(state.samples), reason)
        return Finish(best(sample for sample in state.samples if sample.answer == state.votes[0].answer), reason)


SPEC = StrategySpec(
    "first_to_k",
    lambda options: FirstToK(options.k),
    FirstToKOptions,
    trials=lambda worth: [{"k": k} for k in (2, 3) if k <= worth],
)
