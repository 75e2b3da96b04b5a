"""Samples whose free answers are grouped by what they mean."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.runner.live import Source
from kinetics_serve.runner.run import Ended, Extra
from kinetics_serve.scorers.meaning import Meaning
from kinetics_serve.strategies.state import Sample


class MeaningGroups:
    """The groups of one request. An answer joins the first group whose founder says the same, else founds one; so each
    is in one group. It is compared with the first max_groups founders.
    """

    def __init__(self, meaning: Meaning, max_groups: int) -> None:
        self._meaning = meaning
        self._max_groups = max_groups
        self._founders: list[tuple[str, Any]] = []
        self._labels: dict[str, str] = {}
        self._turn = asyncio.Lock()

    @property
    def worst_case(self) -> Cost:
        """Of placing one answer."""
        return self._meaning.worst_case(self._max_groups)

    async def label(self, answer: str) -> tuple[str, Cost]:
        """The founder of the answer's group, and what finding it cost. Raises MeaningFailed."""
        async with self._turn:
            if answer in self._labels:
                return self._labels[answer], ZERO
            read, cost = await self._meaning.read(answer)
            for label, founder in self._founders:
                same, more = await self._meaning.same(read, founder)
                cost += more
                if same:
                    self._labels[answer] = label
                    return label, cost
            if len(self._founders) < self._max_groups:
                self._founders.append((answer, read))
            self._labels[answer] = answer
            return answer, cost


class GroupedSource:
    """A source whose samples' answers are labelled by groups."""

    def __init__(self, source: Source, groups: MeaningGroups) -> None:
        self._source = source
        self._groups = groups

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]:
        async with aclosing(self._source.sample(sample)) as events:
            async for event in events:
                if not isinstance(event, Ended) or event.answer is None:
                    yield event
                    continue
                # Until it is known, should the request end meanwhile; after what forcing the answer took.
                yield event.extra._replace(grouped=self._groups.worst_case)
                label, cost = await self._groups.label(event.answer)
                yield event._replace(answer=label, extra=event.extra._replace(grouped=cost))
