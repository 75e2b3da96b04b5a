"""A cheap model first, a dearer one where the cheap one's samples disagree."""

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.spec import StrategySpec, VoteOptions
from kinetics_serve.strategies.state import (
    MIN_SAMPLE_TOKENS,
    Action,
    Finish,
    Launch,
    Policy,
    State,
    Status,
    StopReason,
    Wait,
)
from kinetics_serve.strategies.votes import tally


@dataclass(frozen=True, slots=True)
class Cascade:
    """Each stage votes on an arm of its own, in their order. A stage that ends surer than `escalate_below` of its
    answer has the last word, and so has one after which no sample of the next is affordable.
    """

    stages: tuple[Policy, ...]
    """Policies that estimate a confidence."""
    escalate_below: float = 0.8
    """A stage's confidence, between 0 and 1; a calibration knows it best."""
    name: str = "cascade"

    def decide(self, state: State) -> Action:
        for arm, policy in enumerate(self.stages):
            seen = view(state, arm)
            action = policy.decide(seen)
            if isinstance(action, Launch):
                return replace(action, arm=arm)
            if isinstance(action, Wait):
                return action
            if self._sure(action) or not self._can_escalate(state, arm):
                return self.conclude(state, action.reason)
        raise AssertionError("unreachable: the last stage can't escalate")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        """By the last stage that has an answer; a later one was asked because the earlier was unsure."""
        finishes = [policy.conclude(view(state, arm), reason) for arm, policy in enumerate(self.stages)]
        with_vote = [finish for finish in finishes if finish.winner is not None and finish.confidence is not None]
        with_text = [finish for finish in finishes if finish.winner is not None]
        return [*finishes[:1], *with_text, *with_vote][-1]

    def _sure(self, finish: Finish) -> bool:
        return finish.confidence is not None and finish.confidence >= self.escalate_below

    def _can_escalate(self, state: State, arm: int) -> bool:
        if arm + 1 == len(self.stages):
            return False
        following = view(state, arm + 1)
        return bool(following.samples) or following.longest_affordable() >= min(
            MIN_SAMPLE_TOKENS, following.arm.max_tokens
        )


def view(state: State, arm: int) -> State:
    """The state as it is for one arm: its own samples and votes, and the money of all."""
    samples = tuple([sample for sample in state.samples if sample.arm == arm])
    return state._replace(
        samples=samples,
        arms=state.arms[arm : arm + 1],
        running=sum(sample.status is Status.RUNNING for sample in samples),
        votes=tally(samples),
    )


class CascadeOptions(VoteOptions):
    escalate_below: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.8
    """The first model's confidence in its answer below which the second is asked."""


SPEC = StrategySpec(
    "cascade",
    lambda options: Cascade((MajorityVote(options.stop_confidence),) * 2, options.escalate_below),
    CascadeOptions,
    arms=2,
)
