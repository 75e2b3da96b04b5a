"""The model's own confidence in a sample, which comes with its log-probabilities."""

from typing import Literal

from kinetics_serve.scorers.spec import CONFIDENCE, ScorerContext, ScorerOptions, ScorerSpec


class ConfidenceScorer(ScorerOptions):
    """The model's confidence, over the whole sample or its least confident stretch. Costs nothing."""

    kind: Literal["confidence"] = "confidence"
    statistic: Literal["mean", "worst_window"] = "mean"


async def _make(options: ConfidenceScorer, context: ScorerContext) -> None:
    return None


SPEC = ScorerSpec(CONFIDENCE, ConfidenceScorer, _make)
