"""Voting on the samples that finish first."""

from dataclasses import dataclass

from kinetics_serve.strategies.choice import affordable_launch
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait


@dataclass(frozen=True, slots=True)
class Race:
    """All samples that the budget covers run at once; the vote ends as MajorityVote's does, and what still runs is
    cancelled.

    The shorter of two samples is right more often, and costs less, so the first to finish make the better voters
    (short-m@k, Hassid et al. 2025, arXiv 2505.17813). There m is fixed; here agreement decides.

    stop_confidence: see MajorityVote.
    """

    stop_confidence: float = 0.95
    name: str = "race"

    def decide(self, state: State) -> Action:
        action = MajorityVote(self.stop_confidence).decide(state)
        if isinstance(action, Finish):
            return action
        return affordable_launch(state, state.samples_left) or Wait()

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return MajorityVote(self.stop_confidence).conclude(state, reason)
