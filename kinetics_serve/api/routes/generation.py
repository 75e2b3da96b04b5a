"""The routes that generate with a budget or without: chat completions, completions, responses."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from kinetics_serve.budgeted import streams
from kinetics_serve.budgeted.arms import AUTO_MODEL
from kinetics_serve.budgeted.execution import Job
from kinetics_serve.budgeted.options import BUDGET_HEADER, KineticsOptions, options_of
from kinetics_serve.budgeted.scoring import scorer_model
from kinetics_serve.budgeted.streams import CompletionStream, ResponseStream, Stream
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough import metered
from kinetics_serve.passthrough.forward import forward
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import check_model, restricted, tenant_of
from kinetics_serve.requests.disconnect import CancellingStream, while_request_connected
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.responses import input as response_input
from kinetics_serve.requests.responses.output import ResponseOutput
from kinetics_serve.requests.services import Services
from kinetics_serve.sources.completion import ChatCompletion, Completion, TextCompletion

router = APIRouter()

SILENCES_BEFORE_A_STREAM = 3
"""A stream begins at the first token, so that what fails before gets the status that it deserves; but no later than
after so many keep-alive intervals, as proxies give up on a server that says nothing."""


@router.post("/v1/chat/completions")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, ChatCompletion)


@router.post("/v1/completions")
async def completions(request: Request) -> Response:
    """OpenAI's completions, plus an optional `kinetics` object with a budget."""
    return await _complete(request, TextCompletion)


@router.post("/v1/responses")
async def responses(request: Request) -> Response:
    """OpenAI's responses, plus an optional `kinetics` object with a budget. Nothing is stored."""
    asked = await _asked(request, response_input.effort_of)
    if asked.options is None:
        if asked.tenant is not None:
            work = metered.pass_response_through(request, asked.tenant, asked.body)
            return await while_request_connected(request, work)
        return await while_request_connected(request, _pass_through(request, asked, "/v1/responses"))
    job = await _job(request, response_input.chat_body(asked.body), asked.options, ChatCompletion)
    output = ResponseOutput(asked.body, job.model, int(time.time()))
    if job.prompt.stream:
        return await _stream(request, job, asked.tenant, ResponseStream(job, output))
    await _run(request, job, asked.tenant)
    return JSONResponse(output.response(job.response()))


async def _complete(request: Request, completion: type[Completion]) -> Response:
    asked = await _asked(request, lambda body: body.get("reasoning_effort"))
    if asked.options is None:
        if asked.tenant is not None:
            work = metered.pass_through(request, asked.tenant, completion, asked.body)
            return await while_request_connected(request, work)
        return await while_request_connected(request, _pass_through(request, asked, completion.path))
    job = await _job(request, asked.body, asked.options, completion)
    if job.prompt.stream:
        return await _stream(request, job, asked.tenant, CompletionStream(job))
    await _run(request, job, asked.tenant)
    return JSONResponse(job.response())


class _Asked(NamedTuple):
    """A request as it came. content: its body's bytes. options: None where it states no budget."""

    content: bytes
    body: Json
    tenant: Tenant | None
    options: KineticsOptions | None


async def _asked(request: Request, effort_of: Callable[[Json], object]) -> _Asked:
    services: Services = request.app.state.services
    content, body = await request_body.read_json(request, services.settings)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
    stated = {"kinetics": body.get("kinetics"), "reasoning_effort": effort_of(body)}
    options = options_of(stated, request.headers.get(BUDGET_HEADER), services.settings.efforts)
    if options is None and body.get("model") == AUTO_MODEL:
        raise invalid(f"{AUTO_MODEL} chooses by the budget: state one, or name a model", "kinetics.budget")
    return _Asked(content, body, tenant, options)


async def _pass_through(request: Request, asked: _Asked, path: str) -> Response:
    return await forward(request, path, asked.content, asked.body)


async def _job(request: Request, body: Json, options: KineticsOptions, completion: type[Completion]) -> Job:
    _check_finite(body)
    tenant = tenant_of(request)
    judge = scorer_model(options)
    if judge is not None:
        check_model(tenant, judge)
    may_use = (lambda model: True) if tenant is None else tenant.may_use
    create = Job.create(body, options, completion, request.app.state.services, may_use)
    return await while_request_connected(request, create)


async def _run(request: Request, job: Job, tenant: Tenant | None) -> None:
    await while_request_connected(request, _work(request.app.state.services, job, tenant))


async def _work(
    services: Services, job: Job, tenant: Tenant | None, on_change: Callable[[], None] = lambda: None
) -> None:
    """Runs the job when it is its turn: where there is a tenant, against its quotas, and settled when this returns."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(services.admitted(tenant, job.load, job.deadline))
        if tenant is not None and services.ledger is not None:
            budget = job.run.account.budget
            charge = Charge(services.ledger, tenant, job.model, job.strategy, budget, job.spent_so_far)
            await stack.enter_async_context(charge)
        await job.work(on_change)


async def _stream(request: Request, job: Job, tenant: Tenant | None, stream: Stream) -> Response:
    services: Services = request.app.state.services
    keep_alive_s = services.settings.keep_alive_s
    changed = asyncio.Event()
    work = asyncio.create_task(_work(services, job, tenant, changed.set))
    work.add_done_callback(lambda _: changed.set())

    async def begun() -> None:
        while not (job.started or work.done()):
            await changed.wait()
            changed.clear()
        if work.done():
            await work

    async def begun_or_late() -> None:
        timer = asyncio.timeout(SILENCES_BEFORE_A_STREAM * keep_alive_s)
        try:
            async with timer:
                await begun()
        except TimeoutError:
            if not timer.expired():
                raise

    async def stop() -> None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    try:
        await while_request_connected(request, begun_or_late())
    except BaseException:
        await stop()
        raise
    events = streams.events(stream, work, changed, job.reports_progress, keep_alive_s)
    return CancellingStream(events, stop, media_type="text/event-stream")


def _check_finite(body: Json) -> None:
    """JSON has no infinity, but a number such as 1e400 reads as one."""
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        raise invalid("the body has a number beyond what a double holds") from None
