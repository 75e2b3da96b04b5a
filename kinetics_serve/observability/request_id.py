"""The name of the request at hand: in the log, in the answer, and with vLLM."""

import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-request-id"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""None outside requests."""


class RequestIds:
    """Middleware: takes the client's `x-request-id` where it is a sane one, else makes one; answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        stated = Headers(scope=scope).get(HEADER, "")
        name = stated if _SANE.fullmatch(stated) else uuid.uuid4().hex
        given = [(key, value) for key, value in scope["headers"] if key != HEADER.encode()]
        scope["headers"] = [*given, (HEADER.encode(), name.encode())]  # what is forwarded is what is answered
        request_id.set(name)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        return await self._app(scope, receive, send_named)
