"""What a budgeted stream sends: progress while samples run, comments while nothing happens, then the answer."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from typing import Protocol

from kinetics_serve.budgeted.answer import Answer
from kinetics_serve.budgeted.options import Progress
from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import ApiError, as_api_error
from kinetics_serve.requests.responses.output import ResponseOutput

PROGRESS_INTERVAL_S = 0.25
KEEP_ALIVE = ": keep-alive\n\n"
"""A comment to every reader of server-sent events, and traffic to the proxies in between."""

PROGRESS_EVENT = "kinetics.progress"
"""What a stream calls its progress for clients that ask for `"progress": "event"`."""


class Stream(Protocol):
    """An answer in one API's words: whole, or as the events of a stream."""

    def whole(self) -> Json: ...

    def opening(self) -> Iterable[str]: ...

    def progress(self, named: bool) -> str:
        """named: as an event with a name of its own, where that would not be so anyway."""
        ...

    def ending(self) -> Iterable[str]: ...

    def failure(self, error: ApiError) -> Iterable[str]: ...


class CompletionStream:
    """Chat completions and completions: chunks, and `[DONE]`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def whole(self) -> Json:
        return self._answer.response()

    def opening(self) -> Iterable[str]:
        return ()

    def progress(self, named: bool) -> str:
        event = _event(self._answer.progress())
        return f"event: {PROGRESS_EVENT}\n{event}" if named else event

    def ending(self) -> Iterable[str]:
        yield from map(_event, self._answer.chunks())
        yield "data: [DONE]\n\n"

    def failure(self, error: ApiError) -> Iterable[str]:
        return _event(error.envelope), "data: [DONE]\n\n"


class ResponseStream:
    """The Responses API: events with a type and a number."""

    def __init__(self, answer: Answer, output: ResponseOutput) -> None:
        self._answer = answer
        self._output = output

    def whole(self) -> Json:
        return self._output.response(self._answer.response())

    def opening(self) -> Iterable[str]:
        return map(_named_event, self._output.opening())

    def progress(self, named: bool) -> str:
        return _named_event(self._output.progress(self._answer.progress()["kinetics"]))

    def ending(self) -> Iterable[str]:
        return map(_named_event, self._output.events(self._answer.response()))

    def failure(self, error: ApiError) -> Iterable[str]:
        return (_named_event(self._output.failed(error.envelope["error"])),)


async def events(
    stream: Stream, work: "asyncio.Task[None]", changed: asyncio.Event, progress: Progress, keep_alive_s: float | None
) -> AsyncGenerator[str, None]:
    """The server-sent events until `work` is done and its answer told.

    changed: set whenever there is something new to report. progress: whether and how the client wants to see it.
    keep_alive_s: seconds of silence after which a comment is sent; None: no comments.
    """
    try:
        for event in stream.opening():
            yield event
        if progress:
            yield stream.progress(progress == "event")
        while not work.done():
            if not progress:
                await asyncio.wait({work}, timeout=keep_alive_s)
                if not work.done():
                    yield KEEP_ALIVE
            elif not await _set_within(changed, keep_alive_s):
                yield KEEP_ALIVE
            elif not work.done():
                changed.clear()
                yield stream.progress(progress == "event")
                await asyncio.wait({work}, timeout=PROGRESS_INTERVAL_S)
        await work
        for event in stream.ending():
            yield event
    except Exception as error:
        for event in stream.failure(as_api_error(error)):
            yield event


async def _set_within(changed: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await changed.wait()
    except TimeoutError:
        return False


def _event(data: Json) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}\n\n"


def _named_event(data: Json) -> str:
    return f"event: {data['type']}\n{_event(data)}"
