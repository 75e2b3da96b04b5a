"""A budgeted request's job, run for its client: in turn, against its tenant's quotas, and streamed if asked for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi import Request
from fastapi.responses import Response

from kinetics_serve.budgeted import streams
from kinetics_serve.budgeted.execution import Job
from kinetics_serve.budgeted.options import KineticsOptions
from kinetics_serve.budgeted.scoring import scorer_model
from kinetics_serve.budgeted.streams import Stream
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests.access import check_model, tenant_of
from kinetics_serve.requests.disconnect import CancellingStream, while_request_connected
from kinetics_serve.requests.services import Services
from kinetics_serve.sources.completion import Completion

SILENCES_BEFORE_A_STREAM = 3
"""A stream begins at the first token, so that what fails before gets the status that it deserves; but no later than
after so many keep-alive intervals, as proxies give up on a server that says nothing."""


async def job_of(request: Request, body: Json, options: KineticsOptions, completion: type[Completion]) -> Job:
    tenant = tenant_of(request)
    judge = scorer_model(options)
    if judge is not None:
        check_model(tenant, judge)
    may_use = (lambda model: True) if tenant is None else tenant.may_use
    create = Job.create(body, options, completion, request.app.state.services, may_use)
    return await while_request_connected(request, create)


async def run(request: Request, job: Job, tenant: Tenant | None) -> None:
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


async def answer_in_a_stream(request: Request, job: Job, tenant: Tenant | None, stream: Stream) -> Response:
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
