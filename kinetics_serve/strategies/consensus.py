"""Voting that stops by a posterior over all answers, with equal votes or with votes weighted by confidence."""

from dataclasses import dataclass
from math import exp, sqrt
from typing import Literal

from kinetics_serve.strategies.choice import affordable_launch, best
from kinetics_serve.strategies.posterior import lead_posterior, more_votes_needed
from kinetics_serve.strategies.state import Action, Finish, Sample, State, Status, StopReason, Wait

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
        counts = [count for _, count in votes]
        if counts and lead_posterior(counts) >= self.stop_confidence:
            return self.conclude(state, "consensus")
        needed = more_votes_needed(counts, self.stop_confidence, state.max_samples, coming=state.running)
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
        return weighted_votes([sample for sample in state.with_status(Status.FINISHED) if sample.answer is not None])


def weighted_votes(voters: list[Sample]) -> list[tuple[str, float]]:
    """Answers and the sum of their voters' weights, rounded to STEP, the leader first.

    Scores are comparable within a request only, so a weight is relative to the request's own spread of scores.
    """
    if not voters:
        return []
    scores = [sample.score for sample in voters]
    mean = sum(scores) / len(scores)
    spread = sqrt(sum([(score - mean) ** 2 for score in scores]) / len(scores))
    raw = [exp(SHARPNESS * (score - mean) / spread) if spread else 1.0 for score in scores]
    share = len(raw) / sum(raw)
    votes: dict[str, float] = {}
    for sample, weight in zip(voters, raw, strict=True):
        votes[str(sample.answer)] = votes.get(str(sample.answer), 0.0) + weight * share
    ranked = sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))
    return [(answer, round(weight / STEP) * STEP) for answer, weight in ranked]
