"""The memory that the bodies of requests take together, from their arrival to their end: it is bounded."""

from starlette.types import ASGIApp, Receive, Scope, Send

from kinetics_serve.errors import RETRY_AFTER_S
from kinetics_serve.requests.admission import Overloaded
from kinetics_serve.requests.errors import as_api_error


class HeldBodies:
    """Refuses a request, before its body is read, where those that run and wait leave no room for it. One alone fits.

    max_bytes: of all bodies together. max_body_bytes: of one; one that doesn't state its length counts as that long.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_body_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_body_bytes = max_body_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        size = self._size(dict(scope["headers"]))
        if self.held and self.held + size > self.max_bytes:
            scope["app"].state.services.metrics.refused.inc()
            message = f"requests that run or wait hold {self.held} of the {self.max_bytes} bytes that bodies may take"
            full = as_api_error(Overloaded(f"{message}, and this one has {size}", RETRY_AFTER_S)).response()
            full.headers["connection"] = "close"  # what is not read would be taken for the next request
            return await full(scope, receive, send)
        self.held += size
        try:
            await self.app(scope, receive, send)
        finally:
            self.held -= size

    def _size(self, headers: dict[bytes, bytes]) -> int:
        stated = headers.get(b"content-length", b"")
        if stated.isdigit():
            return min(int(stated), self.max_body_bytes)  # a longer one is refused for its length
        return self.max_body_bytes if b"transfer-encoding" in headers else 0
