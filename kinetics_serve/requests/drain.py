"""How a front-end stops: it takes nothing new, finishes what runs, and tells the rest."""

import asyncio
import logging
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinetics_serve.errors import RETRY_AFTER_S
from kinetics_serve.requests.disconnect import failure_event
from kinetics_serve.requests.errors import ApiError

logger = logging.getLogger(__name__)

ALWAYS_ANSWERED = ("/health", "/ready", "/metrics")

GRACE_S = 5.0
"""Seconds for a request that was told to stop to give its best answer, and for one that was cancelled to settle."""


@dataclass(eq=False, slots=True)
class Drain:
    """How far a server is in stopping."""

    started: bool = False
    """Nothing new is taken."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    """What still runs ends now, with its best answer so far if it has one."""

    requests: set["asyncio.Task[object]"] = field(default_factory=set)
    """What runs."""

    async def run(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Returns when no request runs any more: after timeout_s, or once `hurry` is set, they are made to end."""
        self.started = True
        if self.requests:
            logger.info("stopping: %d requests have %g s to finish", len(self.requests), timeout_s)
        hurried = asyncio.create_task(hurry.wait())
        finished = asyncio.create_task(self._finished())
        await asyncio.wait({hurried, finished}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        self.over.set()
        await asyncio.wait({finished}, timeout=GRACE_S)
        if self.requests:
            logger.warning("stopping: %d requests are broken off", len(self.requests))
        for request in self.requests:
            request.cancel()
        await asyncio.wait({finished}, timeout=GRACE_S)
        finished.cancel()

    async def _finished(self) -> None:
        while self.requests:
            await asyncio.wait(self.requests)


class DrainMiddleware:
    """Knows every request, and tells its client when the server stops."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            return await self.app(scope, receive, send)
        if self.drain.started:
            return await stopping().response()(scope, receive, send)
        reply = _Reply(send)
        task = asyncio.current_task()
        assert task is not None
        self.drain.requests.add(task)
        try:
            await self.app(scope, receive, reply.send)
        except asyncio.CancelledError:
            if not self.drain.over.is_set():
                raise
            task.uncancel()
            await reply.end(scope, receive)
        finally:
            self.drain.requests.discard(task)


class _Reply:
    """What of a response has been sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._ended = self._events = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self._events = any(
                name.lower() == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        else:
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Tells the client that this was all: by a status, or by an event where the response has begun."""
        if not self._begun:
            await stopping().response()(scope, receive, self._send)
        elif self._events and not self._ended:
            await self._send({"type": "http.response.body", "body": failure_event(scope["path"], stopping())})


def stopping() -> ApiError:
    """What clients get that come, or still wait, when the server stops."""
    headers = {"retry-after": str(RETRY_AFTER_S), "connection": "close"}
    return ApiError(503, "engine_unavailable", "this server is stopping; try again in a few seconds", headers=headers)
