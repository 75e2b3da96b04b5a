"""Server-sent events as they pass by: what they say is read, and their bytes stay as they are."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import orjson

from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.sample_stream import AFTER_DONE_S
from kinetics_serve.engine.server_sent_events import EventSplitter, EventTooLong

_LINES = re.compile(rb"\r\n|\r|\n")


class Event:
    """One event. raw: all its bytes, with the empty line that ends it. name: its `event:`. data: its `data:` lines."""

    __slots__ = ("data", "name", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.name = b""
        data = []
        for line in _LINES.split(raw):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                self.name = value.removeprefix(b" ")
        self.data = b"\n".join(data)

    def json(self) -> dict[str, Any] | None:
        """The object in its data; None where there is no such."""
        return object_in(self.data)


def object_in(content: bytes) -> dict[str, Any] | None:
    """The JSON object that `content` is, if it is one."""
    try:
        value = orjson.loads(content)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


async def split(pieces: AsyncIterator[bytes]) -> AsyncGenerator[list[Event], None]:
    """The events of a stream that comes in any pieces, as many at a time as were complete together.

    What follows the last empty line is an event too, unless the stream broke off there. Raises EngineUnavailable for an
    event without an end.
    """
    splitter = EventSplitter()
    async for piece in pieces:
        try:
            events = splitter.feed(piece)
        except EventTooLong as error:
            raise EngineUnavailable(f"the engine sent {error}") from None
        if events:
            yield [Event(event) for event in events]
    if rest := splitter.rest():
        yield [Event(rest)]


async def after_the_last(events: AsyncIterator[list[Event]]) -> bytes:
    """What still follows a stream's last event, which nobody waits for long: reading it frees the connection."""
    rest = b""
    with suppress(TimeoutError, EngineUnavailable):
        async with asyncio.timeout(AFTER_DONE_S):
            async for batch in events:
                rest += b"".join(event.raw for event in batch)
    return rest
