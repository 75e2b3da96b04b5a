"""Requests that go to vLLM as they are, and its own answer, byte for byte."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi.responses import Response

from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.observability.metrics import PassedThrough
from kinetics_serve.passthrough import dialects
from kinetics_serve.passthrough.events import after_the_last
from kinetics_serve.passthrough.passage import Passage
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import telling

FORWARDED_HEADERS = ("accept", "accept-encoding", "content-type", "x-request-id")


async def forward(
    call: Call, path: str, content: bytes, body: Mapping[str, Any], *, runs_model: bool = True
) -> Response:
    """vLLM's answer at `path`. body: what `content` says, as far as it is known. Raises KineticsError.

    runs_model: the request waits for its turn on the engines.
    """
    passage = Passage(call, path, body)
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(AsyncExitStack())
        passed = await passage.admitted(resources, queued=runs_model)
        async with passage.deadline.awaiting_engine():
            response, pieces = await passage.opened(
                resources, content, FORWARDED_HEADERS, streamed=body.get("stream") is True, raw=True
            )
        readable = response.content_type == "text/event-stream" and "content-encoding" not in response.headers
        if readable:
            answered = telling(path, _events(passage, pieces, response.status, passed))
        else:
            answered = _watched(pieces, response.status, passed)
        answer = passage.stream(response, answered, resources)
        stack.pop_all()  # the answer closes them from here on
    return answer


async def _events(
    passage: Passage, pieces: AsyncIterator[bytes], status: int, passed: PassedThrough
) -> AsyncGenerator[bytes, None]:
    """A stream's events, over with its last."""
    is_last = dialects.of(passage.path).is_last
    passed.began()
    events = passage.events(pieces)
    try:
        async for batch in events:
            over = any(map(is_last, batch))
            if over:
                passage.over(passed, status)
            yield b"".join(event.raw for event in batch)
            if over:
                yield await after_the_last(events)
                return
    except EngineUnavailable:
        passed.failed()
        raise
    passed.answered(status)


async def _watched(pieces: AsyncIterator[bytes], status: int, passed: PassedThrough) -> AsyncGenerator[bytes, None]:
    passed.began()
    try:
        async for piece in pieces:
            yield piece
    except EngineUnavailable:
        passed.failed()
        raise
    passed.answered(status)
