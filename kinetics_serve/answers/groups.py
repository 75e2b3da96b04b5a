"""Sorts the answers of one request into groups of the same answer."""

import time
from collections.abc import Iterable
from typing import Protocol

from kinetics_serve.answers.equivalence import Domain, EquivalenceKind, domain, is_slow, quick_key, slow_key

MAX_SLOW_S = 2.0
"""How long a request may wait for answers that take too long, all of them together."""


class Keys(Protocol):
    async def key(self, answer: str, kind: EquivalenceKind) -> str: ...


class AnswerGroups:
    """A group is labelled by the answer that founded it, as it was written. labels: groups that are there already."""

    def __init__(self, kind: EquivalenceKind, keys: Keys, labels: Iterable[str] = ()) -> None:
        self._kind = kind
        self._keys = keys
        self._known = list(labels)
        self._labels: dict[str, str] = {}
        self._domains: dict[str, Domain] = {}
        self._slow_s = 0.0

    async def label(self, answer: str) -> str:
        """The label of the group that `answer` belongs to, a new one if it equals no earlier answer."""
        while self._known:
            known = self._known[0]
            key = await self._key(known)
            if self._known and self._known[0] == known:  # nobody else found it meanwhile
                self._found(self._known.pop(0), key)
        return self._found(answer, await self._key(answer))

    def domain(self, label: str) -> Domain | None:
        """What the answers of a group were taken for; None for what is no label."""
        return self._domains.get(label)

    def _found(self, answer: str, key: str) -> str:
        label = self._labels.setdefault(key, answer)
        self._domains.setdefault(label, domain(key))
        return label

    async def _key(self, answer: str) -> str:
        if self._slow_s >= MAX_SLOW_S:
            return quick_key(answer, self._kind) or slow_key(answer)
        started = time.monotonic()
        key = await self._keys.key(answer, self._kind)
        if is_slow(key):
            self._slow_s += time.monotonic() - started
        return key
