"""A budgeted request, from its call to its answer: in turn, against its tenant's quotas, and streamed if asked for."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi.responses import JSONResponse, Response

from kinetics_serve.budgeted import streams
from kinetics_serve.budgeted.answer import Answer
from kinetics_serve.budgeted.execution import Execution
from kinetics_serve.budgeted.options import KineticsOptions, options_of
from kinetics_serve.budgeted.prepare import prepare
from kinetics_serve.budgeted.streams import Stream
from kinetics_serve.engine.pool import AUTO_MODEL
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import CancellingStream, while_request_connected
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.services import DEFAULT_KEEP_ALIVE_S
from kinetics_serve.sources.completion import Completion

SILENCES_BEFORE_A_STREAM = 3
"""A stream begins at the first token, so that what fails before gets the status that it deserves; but no later than
after so many keep-alive intervals, as proxies give up on a server that says nothing."""


def stated_options(call: Call, effort: object) -> KineticsOptions | None:
    """What a request says of a budget, None where it has none. effort: its `reasoning_effort`. Raises ApiError."""
    stated = {"kinetics": call.body.get("kinetics"), "reasoning_effort": effort}
    options = options_of(stated, call.request.headers, call.services.settings.efforts)
    if options is None and call.body.get("model") == AUTO_MODEL:
        raise invalid(f"{AUTO_MODEL} chooses by the budget: state one, or name a model", "kinetics.budget")
    return options


async def respond(
    call: Call,
    body: Json,
    options: KineticsOptions,
    completion: type[Completion],
    stream_of: Callable[[Answer], Stream],
) -> Response:
    """The answer, in the words of `stream_of`. body: the call's, as a chat completion or completion."""
    execution = await while_request_connected(call.request, planned(call, body, options, completion))
    stream = stream_of(Answer(execution))
    if execution.prompt.stream:
        return await _streamed(call, execution, stream)
    await while_request_connected(call.request, run_in_turn(call, execution))
    return JSONResponse(stream.whole())


async def planned(call: Call, body: Json, options: KineticsOptions, completion: type[Completion]) -> Execution:
    """Prepared and planned: nothing has been spent. Raises KineticsError."""
    services = call.services
    deadline = services.deadline(options.deadline_s)
    async with deadline.awaiting_engine():  # which counts the prompt's tokens
        prepared = await prepare(body, options, completion, call.tenant, services)
    return Execution(prepared, services, deadline)


async def run_in_turn(call: Call, execution: Execution, on_change: Callable[[], None] = lambda: None) -> None:
    """Works when it is its turn: where there is a tenant, against its quotas, and settled when this returns."""
    services, tenant, run = call.services, call.tenant, execution.run
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(services.admitted(tenant, execution.load, execution.deadline))
        if tenant is not None and services.delivery is not None:
            model, strategy = run.arms[0].model, run.policy.name
            charge = Charge(services.delivery, tenant, model, strategy, run.account.budget, run.spent_so_far)
            await stack.enter_async_context(charge)
            kind = (tenant.name, model, strategy)
            stack.enter_context(services.metrics.charging(*kind, charge.quotas_used, run.spent_so_far))
        await execution.work(on_change)


async def _streamed(call: Call, execution: Execution, stream: Stream) -> Response:
    keep_alive_s = call.services.settings.keep_alive_s or None
    changed = asyncio.Event()
    work = asyncio.create_task(run_in_turn(call, execution, changed.set))
    work.add_done_callback(lambda _: changed.set())

    async def begun() -> None:
        while not (execution.started or work.done()):
            await changed.wait()
            changed.clear()
        if work.done():
            await work

    async def begun_or_late() -> None:
        timer = asyncio.timeout(SILENCES_BEFORE_A_STREAM * (keep_alive_s or DEFAULT_KEEP_ALIVE_S))
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
    options = execution.options
    silence_s = keep_alive_s if options.keep_alive else None
    events = streams.events(stream, work, changed, options.progress, silence_s)
    return CancellingStream(events, stop, media_type="text/event-stream")
