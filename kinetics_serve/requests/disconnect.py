"""Work that ends when its client goes away."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.requests.errors import ApiError, as_api_error

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled, and has ended, before ClientDisconnect is raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def while_request_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The same for a request whose body has been read."""
    return await while_connected(request.receive, work)


def failure_event(path: str, error: ApiError) -> bytes:
    """The end of a stream of events at `path` that breaks off."""
    if path == "/v1/messages":  # Anthropic's clients skip events without a name
        told = json.dumps({"type": "error", "error": {"type": "api_error", "message": str(error)}})
        return f"\n\nevent: error\ndata: {told}\n\n".encode()
    return f"\n\ndata: {json.dumps(error.envelope)}\n\ndata: [DONE]\n\n".encode()


async def telling(path: str, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """An engine's server-sent events, and one more if it fails: the status has been sent by then."""
    try:
        async for event in events:
            yield event
    except EngineUnavailable as error:
        yield failure_event(path, as_api_error(error))


class CancellingStream(StreamingResponse):
    """A stream that ends as soon as the client is gone, not at its next chunk.

    Where an engine fails in its middle, it stays incomplete, and the connection is closed: the status has been sent.

    cleanup: called when the stream is over, however it ended, even if it never began.
    """

    def __init__(
        self, content: AsyncIterator[str | bytes], cleanup: Callable[[], Awaitable[object]], **more: Any
    ) -> None:
        super().__init__(content, **more)
        self._cleanup = cleanup

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnect):
                await while_connected(receive, self.stream_response(send))
        except EngineUnavailable as error:
            logger.warning("an answer at %s was broken off: %s", scope["path"], error)
        finally:
            await self._cleanup()
