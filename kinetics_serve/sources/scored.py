"""Samples that are scored as they finish."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from kinetics_serve.answers.thinking import after_thinking
from kinetics_serve.runner.live import Source
from kinetics_serve.runner.run import Ended, Extra
from kinetics_serve.scorers.scorer import Scorer, ScorerFailed
from kinetics_serve.strategies.state import LARGEST_SCORE, Sample, Status


class ScoredSource:
    """A source whose samples' scores come from a scorer. text: of the sample with an index.

    What was cut off or says nothing is not worth a scorer's money: it loses to every other sample anyway.
    """

    def __init__(self, source: Source, scorer: Scorer, text: Callable[[int], str]) -> None:
        self._source = source
        self._scorer = scorer
        self._text = text

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]:
        async with aclosing(self._source.sample(sample)) as events:
            async for event in events:
                if not isinstance(event, Ended):
                    yield event
                elif event.status is not Status.FINISHED or event.empty:
                    yield event._replace(score=0.0)
                else:
                    # Until it is known, should the request end meanwhile; after what forcing and grouping took.
                    yield event.extra._replace(scored=self._scorer.worst_case(event.tokens))
                    text = after_thinking(self._text(sample.index))
                    score = await self._scorer.score(text, event.answer, event.tokens)
                    if not abs(score.value) <= LARGEST_SCORE:  # or no number at all
                        raise ScorerFailed(
                            f"the scorer gave {score.value}: scores are from {-LARGEST_SCORE:g} to {LARGEST_SCORE:g}"
                        )
                    yield event._replace(score=score.value, extra=event.extra._replace(scored=score.cost))
