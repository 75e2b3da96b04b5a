"""Every error that a client can get, in OpenAI's envelope."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kinetics_serve.errors import KineticsError

logger = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left: nobody reads it but the access log."""


class ApiError(KineticsError):
    """An error with its place in OpenAI's envelope, and the headers that go with it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers

    @property
    def envelope(self) -> dict[str, dict[str, str | None]]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.envelope, self.status, headers=self.headers)


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param)


def from_validation(error: ValidationError | RequestValidationError, prefix: str = "") -> ApiError:
    """The first of a pydantic error's complaints, with the field's path and what was given."""
    first = error.errors()[0]
    path = ".".join([prefix, *(str(part) for part in first["loc"])]).strip(".")[:100]
    given = repr(first.get("input"))
    if len(given) > 100:
        given = given[:100] + "…"
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return invalid(f"{path}: {first['msg']}; given: {given}{more}", path or None)


def as_api_error(error: Exception) -> ApiError:
    """The client's view of any exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, KineticsError):
        after = error.retry_after_s
        headers = None if after is None else {"retry-after": str(after)}
        return ApiError(error.status, error.code, f"{error}{error.advice}", error.param, headers)
    logger.error("unexpected error", exc_info=error)
    return ApiError(500, "internal_error", "internal error; the server's log has the details")


class Unexpected:
    """Middleware: answers what nobody expected, inside of what names, logs and admits answers; Starlette's own handler
    of all exceptions stands outside of that. An answer that has begun stays incomplete, and its connection is closed.
    """

    def __init__(self, app: ASGIApp, handle: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self._app = app
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun = False

        async def send_noticed(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noticed)
        except Exception as error:
            answer = await self._handle(Request(scope), error)
            if not begun:
                await answer(scope, receive, send)


def install(app: FastAPI) -> None:
    """Makes every error of the app's leave in the envelope."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        answer = as_api_error(error)
        if answer.status >= 500:
            app.state.services.metrics.server_errors.labels(code=answer.code).inc()
        return answer.response()

    async def handle_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        code = "not_found" if error.status_code == 404 else "invalid_request"
        return ApiError(error.status_code, code, message, headers=error.headers).response()

    async def handle_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return from_validation(error).response()

    async def handle_disconnect(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    app.add_middleware(Unexpected, handle=handle)
    app.add_exception_handler(ClientDisconnect, handle_disconnect)
    for kind in (KineticsError, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(RequestValidationError, handle_validation)
