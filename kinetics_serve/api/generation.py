"""The routes that generate: chat completions and completions, with a budget or without."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from kinetics_serve.api import body as request_body
from kinetics_serve.api import metered
from kinetics_serve.api.access import check_model, restricted, tenant_of
from kinetics_serve.api.disconnect import CancellingStream, while_request_connected
from kinetics_serve.api.errors import as_api_error, invalid
from kinetics_serve.api.job import Job
from kinetics_serve.api.options import BUDGET_HEADER, options_of
from kinetics_serve.api.scoring import scorer_model
from kinetics_serve.api.services import Services
from kinetics_serve.engine.completion import ChatCompletion, Completion, TextCompletion
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.limits import Tenant

router = APIRouter()

PROGRESS_INTERVAL_S = 0.25
FORWARDED_HEADERS = ("accept", "accept-encoding", "x-request-id")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, ChatCompletion)


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """OpenAI's completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, TextCompletion)


async def _complete(request: Request, completion: type[Completion]) -> Response:
    services: Services = request.app.state.services
    content = await request_body.read(request, services.settings.max_body_bytes)
    body = request_body.parse(content)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
    options = options_of(body, request.headers.get(BUDGET_HEADER), services.settings.efforts)
    if options is None:
        if tenant is not None:
            return await while_request_connected(request, metered.pass_through(request, tenant, completion, body))
        return await while_request_connected(request, _pass_through(request, completion, body, content))
    _check_finite(body)
    judge = scorer_model(options)
    if judge is not None:
        check_model(tenant, judge)
    job = await while_request_connected(request, Job.create(body, options, completion, services))
    if job.prompt.stream:
        return await _stream(request, job, tenant)
    await while_request_connected(request, _work(services, job, tenant))
    return JSONResponse(job.response())


async def _work(
    services: Services, job: Job, tenant: Tenant | None, on_change: Callable[[], None] = lambda: None
) -> None:
    """Runs the job: where there is a tenant, against its quotas, and settled when this returns."""
    async with AsyncExitStack() as stack:
        if tenant is not None and services.ledger is not None:
            budget = job.run.account.budget
            charge = Charge(services.ledger, tenant, job.model, job.strategy, budget, job.spent_so_far)
            await stack.enter_async_context(charge)
        await job.work(on_change)


async def _pass_through(request: Request, completion: type[Completion], body: Json, content: bytes) -> Response:
    """vLLM's own answer, byte for byte."""
    services: Services = request.app.state.services
    model = body.get("model")
    route = Route(services.pool, model if isinstance(model, str) else None, body)
    # httpx would ask for a compressed answer on its own account.
    headers = {"accept-encoding": "identity"}
    headers |= {name: request.headers[name] for name in FORWARDED_HEADERS if name in request.headers}
    stack = AsyncExitStack()
    async with stack:
        streamed = body.get("stream") is True
        opening = route.open(completion.path, content, headers, streamed=streamed, raw=True)
        response, pieces = await stack.enter_async_context(opening)
        opened = stack.pop_all()
    answered = {key: value for key, value in response.headers.items() if key.lower() not in HOP_BY_HOP}
    return CancellingStream(pieces, opened.aclose, status_code=response.status_code, headers=answered)


async def _stream(request: Request, job: Job, tenant: Tenant | None) -> Response:
    """A budgeted stream. It begins at the first token, so that what fails before gets the status that it deserves."""
    changed = asyncio.Event()
    work = asyncio.create_task(_work(request.app.state.services, job, tenant, changed.set))
    work.add_done_callback(lambda _: changed.set())

    async def begun() -> None:
        while not (job.started or work.done()):
            await changed.wait()
            changed.clear()
        if work.done():
            await work

    async def stop() -> None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    try:
        await while_request_connected(request, begun())
    except BaseException:
        await stop()
        raise
    return CancellingStream(_events(job, work, changed), stop, media_type="text/event-stream")


async def _events(job: Job, work: "asyncio.Task[None]", changed: asyncio.Event) -> AsyncGenerator[str, None]:
    """The server-sent events of a budgeted stream: progress, the winner, the bill."""
    try:
        yield _event(job.progress())
        while not work.done():
            await changed.wait()
            changed.clear()
            if not work.done():
                yield _event(job.progress())
                await asyncio.wait({work}, timeout=PROGRESS_INTERVAL_S)
        await work
        for chunk in job.chunks():
            yield _event(chunk)
    except Exception as error:
        yield _event(as_api_error(error).envelope)
    yield "data: [DONE]\n\n"


def _event(data: Any) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=False)}\n\n"


def _check_finite(body: Json) -> None:
    """JSON has no infinity, but a number such as 1e400 reads as one."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise invalid("the body has a number beyond what a double holds") from None
