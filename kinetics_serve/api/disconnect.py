"""Work that ends when its client goes away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

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


class CancellingStream(StreamingResponse):
    """A stream that ends as soon as the client is gone, not at its next chunk.

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
        finally:
            await self._cleanup()
