"""Voting on the samples that finish first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.moves import affordable_launch
from kinetics_serve.strategies.spec import STOP_CONFIDENCES, StrategySpec, VoteOptions, powers_of_two, stop_confidences
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait

ALWAYS_SURE = 2
"""A race that so many votes decide ends before its stop confidence could."""


@dataclass(frozen=True, slots=True)
class Race:
    """All samples that the budget covers run at once; the vote ends as MajorityVote's does, or with a number of votes,
    and what still runs is cancelled. Where all have ended and it is still open, what is left buys another round.

    The shorter of two samples is right more often, and costs less, so the first to finish make the better voters
    (short-m@k, Hassid et al. 2025, arXiv 2505.17813).
    """

    stop_confidence: float = 0.95
    """See MajorityVote."""
    deciding_votes: int | None = None
    """So many end it, agreed or not; None leaves it to agreement alone."""
    name: str = "race"

    def decide(self, state: State) -> Action:
        action = MajorityVote(self.stop_confidence).decide(state)
        if isinstance(action, Finish):
            return action
        enough = self.deciding_votes
        if enough is not None and sum([vote.count for vote in state.votes]) >= enough:
            return self.conclude(state, "max_samples")
        if state.running:
            return Wait()
        launch = affordable_launch(state, state.samples_left)
        if launch is not None:
            return launch
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return MajorityVote(self.stop_confidence).conclude(state, reason)


class RaceOptions(VoteOptions):
    deciding_votes: Annotated[int, Field(ge=1, strict=True)] | None = None
    """So many votes end it, agreed or not; null leaves it to agreement alone."""


def _trials(worth: int) -> list[Mapping[str, Any]]:
    trials = list(stop_confidences(worth))
    for votes in powers_of_two(worth - 1) if worth > 1 else ():
        sure = STOP_CONFIDENCES if votes > ALWAYS_SURE else STOP_CONFIDENCES[-1:]
        trials += [{"stop_confidence": confidence, "deciding_votes": votes} for confidence in sure]
    return trials


SPEC = StrategySpec(
    "race", lambda options: Race(options.stop_confidence, options.deciding_votes), RaceOptions, trials=_trials
)
