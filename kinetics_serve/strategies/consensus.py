"""Voting that stops by a posterior over all answers, with equal votes or with votes weighted by confidence."""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, sqrt
from typing import Literal

from kinetics_serve.strategies.moves import affordable_launch, best
from kinetics_serve.strategies.posterior import lead_posterior, more_votes_needed
from kinetics_serve.strategies.spec import StrategySpec, VoteOptions, stop_confidences
from kinetics_serve.strategies.state import Action, Finish, State, StopReason, Wait

Weights = Literal["equal", "confidence"]

SHARPNESS = 0.5
"""A sample whose confidence is one standard deviation above the others' has e^0.5 = 1.65 times the vote."""

STEP = 0.25
"""Weighted votes are rounded to this, so that the same posteriors come up again and are computed once."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """MajorityVote's way of launching, with the Dirichlet posterior of all answers for its lead.

    Where MajorityVote compares the leader with the runner-up alone, many small rivals count here too, and so does
    an answer that nobody gave yet. weights: one vote a sample, or more for samples that are more confident than the
    request's others (they sum to the number of votes either way).
    """

    stop_confidence: float = 0.95
    weights: Weights = "equal"

    @property
    def name(self) -> str:
        return "consensus" if self.weights == "equal" else "weighted_vote"

    def decide(self, state: State) -> Action:
        votes = self._votes(state)
        counts = tuple([count for _, count in votes])
        if counts and lead_posterior(counts) >= self.stop_confidence:
            return self.conclude(state, "consensus")
        needed = more_votes_needed(counts, self.stop_confidence, state.arm.max_samples, coming=state.running)
        launch = affordable_launch(state, min(needed - state.running, state.samples_left))
        if launch is not None:
            return launch
        if state.running:
            return Wait()
        return self.conclude(state, "budget" if state.samples_left > 0 else "max_samples")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        votes = self._votes(state)
        if not votes:
            return Finish(best(state.samples), reason)
        winner = best(sample for sample in state.samples if sample.answer == votes[0][0])
        return Finish(winner, reason, lead_posterior([count for _, count in votes]))

    def _votes(self, state: State) -> list[tuple[str, float]]:
        """Answers and what they got, the leader first."""
        if self.weights == "equal":
            return [(vote.answer, float(vote.count)) for vote in state.votes]
        # An answer is kept of finished samples only.
        voters = [(sample.answer, sample.score) for sample in state.samples if sample.answer is not None]
        return weighted_votes(tuple(voters))


@lru_cache(maxsize=4096)
def weighted_votes(voters: tuple[tuple[str, float], ...]) -> list[tuple[str, float]]:
    """Answers and the sum of their voters' weights, rounded to STEP, the leader first. voters: answer and score.

    Scores are comparable within a request only, so a weight is relative to the request's own spread of scores.
    """
    if not voters:
        return []
    count = len(voters)
    mean = sum([score for _, score in voters]) / count
    spread = sqrt(sum([(score - mean) ** 2 for _, score in voters]) / count)
    scale = SHARPNESS / spread if spread else 0.0
    raw: dict[str, float] = {}
    for answer, score in voters:
        raw[answer] = raw.get(answer, 0.0) + exp(scale * (score - mean))
    share = count / sum(raw.values()) / STEP
    ranked = sorted([(-weight, answer) for answer, weight in raw.items()])
    return [(answer, round(-weight * share) * STEP) for weight, answer in ranked]


SPEC = StrategySpec(
    "consensus", lambda options: Consensus(options.stop_confidence), VoteOptions, trials=stop_confidences
)
WEIGHTED_SPEC = StrategySpec(
    "weighted_vote",
    lambda options: Consensus(options.stop_confidence, "confidence"),
    VoteOptions,
    by_score=True,
    trials=stop_confidences,
)
