"""A budgeted request's job, run for its client: in turn, against its tenant's quotas, and streamed if asked for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi.responses import Response

from kinetics_serve.budgeted import streams
from kinetics_serve.budgeted.execution import Job
from kinetics_serve.budgeted.options import BUDGET_HEADER, KineticsOptions, options_of
from kinetics_serve.budgeted.scoring import scorer_model
from kinetics_serve.budgeted.streams import Stream
from kinetics_serve.engine.pool import AUTO_MODEL
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.requests.access import check_model
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import CancellingStream, while_request_connected
from kinetics_serve.requests.errors import invalid
from kinetics_serve.sources.completion import Completion

SILENCES_BEFORE_A_STREAM = 3
"""A stream begins at the first token, so that what fails before gets the status that it deserves; but no later than
after so many keep-alive intervals, as proxies give up on a server that says nothing."""


def stated_options(call: Call, effort: object) -> KineticsOptions | None:
    """What a request says of a budget, None where it has none. effort: its `reasoning_effort`. Raises ApiError."""
    stated = {"kinetics": call.body.get("kinetics"), "reasoning_effort": effort}
    options = options_of(stated, call.request.headers.get(BUDGET_HEADER), call.services.settings.efforts)
    if options is None and call.body.get("model") == AUTO_MODEL:
        raise invalid(f"{AUTO_MODEL} chooses by the budget: state one, or name a model", "kinetics.budget")
    return options


async def job_of(call: Call, body: Json, options: KineticsOptions, completion: type[Completion]) -> Job:
    judge = scorer_model(options)
    if judge is not None:
        check_model(call.tenant, judge)
    create = Job.create(body, options, completion, call.services, call.may_use)
    return await while_request_connected(call.request, create)


async def run(call: Call, job: Job) -> None:
    await while_request_connected(call.request, _work(call, job))


async def _work(call: Call, job: Job, on_change: Callable[[], None] = lambda: None) -> None:
    """Runs the job when it is its turn: where there is a tenant, against its quotas, and settled when this returns."""
    services, tenant = call.services, call.tenant
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(services.admitted(tenant, job.load, job.deadline))
        if tenant is not None and services.ledger is not None:
            budget = job.run.account.budget
            charge = Charge(services.ledger, tenant, job.model, job.strategy, budget, job.spent_so_far)
            await stack.enter_async_context(charge)
        await job.work(on_change)


async def answer_in_a_stream(call: Call, job: Job, stream: Stream) -> Response:
    keep_alive_s = call.services.settings.keep_alive_s
    changed = asyncio.Event()
    work = asyncio.create_task(_work(call, job, changed.set))
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
        await while_request_connected(call.request, begun_or_late())
    except BaseException:
        await stop()
        raise
    events = streams.events(stream, work, changed, job.reports_progress, keep_alive_s)
    return CancellingStream(events, stop, media_type="text/event-stream")
