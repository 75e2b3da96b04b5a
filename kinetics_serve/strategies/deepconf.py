"""Voting that gives up hopeless samples before they are done."""

from dataclasses import dataclass, replace

from kinetics_serve.strategies.consensus import Consensus
from kinetics_serve.strategies.spec import StrategySpec, VoteOptions, stop_confidences
from kinetics_serve.strategies.state import Action, Finish, Launch, State, Status, StopReason, Wait

KEEP = 0.9
"""DeepConf-high: nine of ten samples would have gone on."""

WARM_UP = 4
"""Finished samples that the first floor is taken from. DeepConf takes 16 of up to 512."""


@dataclass(frozen=True, slots=True)
class DeepConf:
    """DeepConf's online stopping (Fu et al. 2025, arXiv 2508.15260, section 3.2) on weighted votes.

    The first WARM_UP samples run to their ends. Further ones have a floor: the (1 − keep) quantile of the lowest group
    confidences of those. A sample is stopped as soon as its group confidence falls below, and has no vote.
    """

    stop_confidence: float = 0.95
    keep: float = KEEP
    name: str = "deepconf"

    def decide(self, state: State) -> Action:
        action = Consensus(self.stop_confidence, "confidence").decide(state)
        if not isinstance(action, Launch):
            return action
        finished = Status.FINISHED
        lowest = sorted([each.lowest for each in state.samples if each.status is finished and each.floor is None])
        if len(lowest) >= WARM_UP:
            return replace(action, floor=lowest[int((1 - self.keep) * len(lowest))])
        room = WARM_UP - len(lowest) - state.running
        return replace(action, count=min(action.count, room)) if room > 0 else Wait()

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return Consensus(self.stop_confidence, "confidence").conclude(state, reason)


SPEC = StrategySpec(
    "deepconf",
    lambda options: DeepConf(options.stop_confidence),
    VoteOptions,
    by_score=True,
    trials=stop_confidences,
    by_group_confidence=True,
)
