"""Sorts the answers of one request into groups of the same answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from kinetics_serve.answers.equivalence import EquivalenceKind, quickly_equal

MathEqual = Callable[[str, str], Awaitable[bool | None]]


class AnswerGroups:
    """A group is labelled by the answer that founded it, as it was written. labels: groups that are there already."""

    def __init__(self, kind: EquivalenceKind, math_equal: MathEqual, labels: Iterable[str] = ()) -> None:
        self._kind = kind
        self._math_equal = math_equal
        self._labels = list(labels)
        self._too_slow: set[str] = set()
        self._lock = asyncio.Lock()

    async def label(self, answer: str) -> str:
        """The label of the group that `answer` belongs to, a new one if it equals no earlier answer."""
        async with self._lock:  # two equal answers at once must not found two groups
            undecided = []
            for label in self._labels:
                equal = quickly_equal(answer, label, self._kind)
                if equal:
                    return label
                if equal is None and label not in self._too_slow:
                    undecided.append(label)
            for label in undecided:
                equal = await self._math_equal(answer, label)
                if equal:
                    return label
                if equal is None:  # either may be what is slow: neither gets to hold up another answer
                    self._too_slow |= {answer, label}
                    break
            self._labels.append(answer)
            return answer
