"""Requests that go to vLLM as they are, and its own answer, byte for byte."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import ClientResponse
from fastapi import Request
from fastapi.responses import Response

from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import EngineUnavailable
from kinetics_serve.observability.metrics import PassedThrough
from kinetics_serve.requests import load
from kinetics_serve.requests.access import tenant_of
from kinetics_serve.requests.disconnect import CancellingStream, telling
from kinetics_serve.requests.services import Services

FORWARDED_HEADERS = ("accept", "accept-encoding", "content-type", "x-request-id")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


async def forward(
    request: Request, path: str, content: bytes, body: Mapping[str, Any], *, runs_model: bool = True
) -> Response:
    """vLLM's answer at `path`. body: what `content` says, as far as it is known. Raises what api.errors knows.

    runs_model: the request waits for its turn on the engines.
    """
    services: Services = request.app.state.services
    model = body.get("model")
    route = Route(services.pool, model if isinstance(model, str) else None, body)
    # aiohttp would ask for a compressed answer on its own account.
    headers = {"accept-encoding": "identity"}
    headers |= forwarded_headers(request, FORWARDED_HEADERS)
    deadline = services.deadline()
    passed = services.metrics.passed_through(route.served.name)
    async with AsyncExitStack() as stack:
        if runs_model:
            expected = load.plain(body, len(content), route.served)
            await stack.enter_async_context(services.admitted(tenant_of(request), expected, deadline))
        stack.enter_context(passed)
        async with deadline.awaiting_engine():
            opening = route.open(path, content, headers, streamed=body.get("stream") is True, raw=True)
            response, pieces = await stack.enter_async_context(opening)
        resources = stack.pop_all()
    answered = answered_headers(response, HOP_BY_HOP)
    watched = _watched(pieces, response.status, passed)
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        watched = telling(path, watched)
    return CancellingStream(watched, resources.aclose, status_code=response.status, headers=answered)


def forwarded_headers(request: Request, names: Sequence[str]) -> dict[str, str]:
    """Those of the client's headers; not what no header may hold, which aiohttp refuses to send."""
    given = {name: request.headers[name] for name in names if name in request.headers}
    return {name: value for name, value in given.items() if value.isascii() and value.isprintable()}


def answered_headers(response: ClientResponse, without: Collection[str]) -> dict[str, str]:
    """Those of the engine's answer, but for some, named in lower case."""
    headers = response.headers
    return {name: ", ".join(headers.getall(name)) for name in headers if name.lower() not in without}


async def _watched(pieces: AsyncIterator[bytes], status: int, passed: PassedThrough) -> AsyncGenerator[bytes, None]:
    passed.began()
    try:
        async for piece in pieces:
            yield piece
    except EngineUnavailable:
        passed.failed()
        raise
    passed.answered(status)
