"""The policy for clients that name none."""

from dataclasses import dataclass

from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.single import Single
from kinetics_serve.strategies.state import Policy, State

MIN_VOTERS = 3
"""Two votes can only agree or tie: a majority needs three."""


@dataclass(frozen=True, slots=True)
class Auto:
    """Majority voting where the budget buys enough voters at full length, else one sample.

    Without a calibration nothing is known of the task, and of the strategies that need no scorer voting is the
    one whose gain is known to hold across tasks (Wang et al. 2022, arXiv 2203.11171). Greedy decoding gives
    the same sample every time, so it gets one.
    """

    stop_confidence: float = 0.95
    greedy: bool = False

    def choose(self, state: State) -> Policy:
        """The policy for a request, from its state before any sample."""
        if self.greedy or state.affordable(state.max_tokens) < MIN_VOTERS:
            return Single()
        return MajorityVote(self.stop_confidence)
