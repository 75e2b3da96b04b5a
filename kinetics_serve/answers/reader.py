"""What a sample votes for, or why it has no vote."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kinetics_serve.answers.equivalence import Domain
from kinetics_serve.answers.groups import AnswerGroups
from kinetics_serve.answers.no_vote import HasNoVote, NoVote
from kinetics_serve.answers.spec import Extractor
from kinetics_serve.answers.structured import tool_calls
from kinetics_serve.answers.thinking import after_thinking

QUICK_CHARACTERS = 500
"""Longer texts are read in a thread, so that the server goes on meanwhile."""


class Read(NamedTuple):
    """label: of the group that the answer belongs to. no_vote: why there is none."""

    label: str | None
    no_vote: NoVote | None = None


class Reader:
    """Reads the samples of one request. ignored: fields of calls' arguments that make no other answer."""

    def __init__(self, extract: Extractor, groups: AnswerGroups, ignored: frozenset[str] = frozenset()) -> None:
        self._extract = extract
        self._groups = groups
        self._ignored = ignored

    async def read(self, text: str, calls: Sequence[Mapping[str, Any]] = ()) -> Read:
        """What a whole sample says: its tool calls where it makes some, else what the extractor finds in its text."""
        if calls:
            made = tool_calls(calls, self._ignored)
            if made is None:
                return Read(None, NoVote.BROKEN_CALL)
            return Read(made.encode(errors="replace").decode())  # JSON may escape half a surrogate pair
        long = len(text) > QUICK_CHARACTERS
        answer = await asyncio.to_thread(self._extract, text) if long else self._extract(text)
        if answer is not None:
            try:
                return Read(await self._groups.label(answer))
            except HasNoVote as error:
                return Read(None, error.reason)
        if not text.strip():
            return Read(None, NoVote.EMPTY)
        return Read(None, NoVote.NO_ANSWER if after_thinking(text).strip() else NoVote.THINKING)

    def domain(self, label: str) -> Domain:
        """What the answers of a group were taken for."""
        return self._groups.domain(label) or "json"  # tool calls are sorted into no groups
