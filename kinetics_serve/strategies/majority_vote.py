"""Self-consistency that buys only the votes it needs."""

from dataclasses import dataclass

from kinetics_serve.strategies.moves import affordable_launch, best
from kinetics_serve.strategies.spec import StrategySpec, VoteOptions, stop_confidences
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait
from kinetics_serve.strategies.votes import lead_confidence, votes_needed


@dataclass(frozen=True, slots=True)
class MajorityVote:
    """Samples vote; the answer with the most votes wins, and voting ends when its lead is sure enough.

    It launches no more samples at a time than could settle the vote if they all agreed with the leader: when
    they do, nothing was wasted, and when they don't, that is known before the next ones are paid for.

    stop_confidence: the probability, in (0, 1], that the leader beats the runner-up at which voting stops.
    1 never stops on probability, only on a lead that can't be overturned.
    """

    stop_confidence: float = 0.95
    name: str = "majority_vote"

    def decide(self, state: State) -> Action:
        leader, runner_up = self._lead(state)
        if leader and lead_confidence(leader, runner_up) >= self.stop_confidence:
            return self.conclude(state, "consensus")
        if leader > runner_up and leader > runner_up + self._votes_to_come(state) > runner_up:
            return self.conclude(state, "consensus")
        needed = votes_needed(leader, runner_up, self.stop_confidence, state.arm.max_samples)
        launch = affordable_launch(state, min(needed - state.running, state.samples_left))
        if launch is not None:
            return launch
        if state.running:
            return Wait()
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        votes = state.votes
        if not votes:
            return Finish(best(state.samples), reason)
        runner_up = votes[1].count if len(votes) > 1 else 0
        winner = best(sample for sample in state.samples if sample.answer == votes[0].answer)
        return Finish(winner, reason, lead_confidence(votes[0].count, runner_up))

    @staticmethod
    def _lead(state: State) -> tuple[int, int]:
        leader, runner_up, *_ = *(vote.count for vote in state.votes[:2]), 0, 0
        return leader, runner_up

    @staticmethod
    def _votes_to_come(state: State) -> int:
        """A bound on the votes still to come: what runs, and what all that is left could buy at one token each."""
        buyable = (state.available + state.recoverable) // state.arm.worst_case(1)
        return state.running + min(state.samples_left, buyable)


SPEC = StrategySpec(
    "majority_vote", lambda options: MajorityVote(options.stop_confidence), VoteOptions, trials=stop_confidences
)
