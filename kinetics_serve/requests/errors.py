"""Every error that a client can get, in OpenAI's envelope."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kinetics_serve.engine.pool import ModelNotFound
from kinetics_serve.engine.upstream import EngineOverloaded, EngineRejected, EngineSilent, EngineUnavailable
from kinetics_serve.ledger.errors import LedgerUnavailable, QuotaExceeded, RequestTooLarge
from kinetics_serve.planner.choose import AccuracyOutOfReach
from kinetics_serve.planner.plan import BudgetTooSmall
from kinetics_serve.requests.admission import Overloaded
from kinetics_serve.scorers.scorer import ScorerFailed

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""Seconds after which a restarted engine may be back."""

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left: nobody reads it but the access log."""


class ApiError(Exception):
    """An error with its status and place in the envelope. `param`: the request's field at fault, dotted."""

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
    if isinstance(error, BudgetTooSmall):
        return ApiError(400, "budget_too_small", str(error), "kinetics.budget")
    if isinstance(error, AccuracyOutOfReach):
        return ApiError(400, "invalid_request", str(error), "kinetics.budget.accuracy")
    if isinstance(error, ModelNotFound):
        return ApiError(404, "model_not_found", str(error), "model")
    if isinstance(error, EngineRejected):
        return ApiError(error.status, "invalid_request", error.message)
    if isinstance(error, Overloaded):
        message = f"{error}; try again in {error.retry_after_s} s"
        return ApiError(429, "overloaded", message, headers={"retry-after": str(error.retry_after_s)})
    if isinstance(error, EngineOverloaded):
        seconds = error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_S
        return ApiError(429, "overloaded", f"{error}; try again later", headers={"retry-after": str(seconds)})
    if isinstance(error, EngineSilent):
        return ApiError(504, "engine_timeout", f"{error}, so it was given up")
    if isinstance(error, EngineUnavailable):
        message = f"{error}; try again in a few seconds"
        return ApiError(503, "engine_unavailable", message, headers={"retry-after": str(RETRY_AFTER_S)})
    if isinstance(error, ScorerFailed):
        return ApiError(502, "scorer_failed", str(error), "kinetics.scorer")
    if isinstance(error, RequestTooLarge):
        return invalid(str(error))
    if isinstance(error, QuotaExceeded):
        return ApiError(429, "quota_exceeded", str(error), headers={"retry-after": str(error.retry_after_s)})
    if isinstance(error, LedgerUnavailable):
        logger.error("the ledger: %s", error.__cause__)
        message = f"{error}; try again in a few seconds"
        return ApiError(503, "ledger_unavailable", message, headers={"retry-after": str(RETRY_AFTER_S)})
    logger.error("unexpected error", exc_info=error)
    return ApiError(500, "internal_error", "internal error; the server's log has the details")


def install(app: FastAPI) -> None:
    """Makes every error of the app's leave in the envelope."""

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response()

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

    app.add_exception_handler(ClientDisconnect, handle_disconnect)
    request = (BudgetTooSmall, AccuracyOutOfReach, ModelNotFound, EngineRejected, EngineUnavailable, ScorerFailed)
    ledger = (Overloaded, RequestTooLarge, QuotaExceeded, LedgerUnavailable)
    for kind in (ApiError, *request, *ledger, Exception):
        app.add_exception_handler(kind, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(RequestValidationError, handle_validation)
