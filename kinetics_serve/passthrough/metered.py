"""Requests of tenants without a budget: vLLM's own answer, reserved before and paid after like any other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic

from fastapi.responses import Response

from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.upstream import Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.observability.metrics import PASS_THROUGH, PassedThrough
from kinetics_serve.passthrough.dialects import Dialect
from kinetics_serve.passthrough.events import after_the_last
from kinetics_serve.passthrough.passage import Passage, answered_headers
from kinetics_serve.passthrough.tab import Tab
from kinetics_serve.requests.disconnect import telling
from kinetics_serve.requests.fields import boolean

FORWARDED_HEADERS = ("accept", "x-request-id")
"""Not accept-encoding: what is compressed can't be metered."""

DECOMPRESSED = (b"content-encoding",)
"""Headers that no longer hold: the answer has been decompressed if the engine compressed it nevertheless."""

WAITED_S = 0.005
"""An event that took longer to come had not been there already, so no other is."""

GONE_WITHIN_S = 0.05
"""Seconds in which the stream of a client that did not read and is gone now is cancelled, before it is read further."""


async def forward_metered(passage: Passage, body: Json, tab: Tab, dialect: Dialect) -> Response:
    """vLLM's answer to `body`, whose worst case is reserved before, and whose tab is settled after.

    dialect: how the answer says what it has used. Raises KineticsError.
    """
    call, name = passage.call, passage.route.served.name
    delivery, tenant = call.services.delivery, call.tenant
    assert delivery is not None
    assert tenant is not None, "only tenants are metered"
    stream = boolean(body, "stream")
    async with AsyncExitStack() as stack:
        resources = await stack.enter_async_context(AsyncExitStack())
        passed = await passage.admitted(resources)
        async with passage.deadline.awaiting_engine():
            charge = Charge(delivery, tenant, name, PASS_THROUGH, tab.reserved, tab.spent)
            await resources.enter_async_context(charge)
            kind = (tenant.name, name, PASS_THROUGH)
            resources.enter_context(call.services.metrics.charging(*kind, charge.quotas_used, tab.spent))
            try:
                response, pieces = await passage.opened(resources, body, FORWARDED_HEADERS, streamed=stream)
                generated = response.status < 300  # a redirection is not followed
                if not generated:
                    tab.refused()
                if not (stream and generated) or response.content_type == "application/json":
                    content = b"".join([piece async for piece in pieces])
                    dialect.read_answer(content, tab)
                    passed.began()
                    passed.answered(response.status)
                    whole = Response(content, response.status)
                    whole.raw_headers.extend(answered_headers(response, DECOMPRESSED))
                    return whole
            except EngineUnavailable:
                tab.refused()
                raise
        if dialect.counts_tokens:
            tab.accepted()
        events = _events(passage, pieces, response.status, tab, dialect, passed, resources)
        answer = passage.stream(response, telling(passage.path, events), resources, DECOMPRESSED)
        stack.pop_all()  # the answer closes them from here on
    return answer


async def _events(
    passage: Passage,
    pieces: AsyncIterator[bytes],
    status: int,
    tab: Tab,
    dialect: Dialect,
    passed: PassedThrough,
    resources: AsyncExitStack,
) -> AsyncGenerator[bytes, None]:
    """The stream's events, over with its last. Settled before the client sees that."""
    end = b""
    ready = monotonic()
    events = passage.events(pieces)
    try:
        async for batch in events:
            if monotonic() - ready > WAITED_S:
                tab.caught_up()
            passed.began()
            for event in batch:
                content = dialect.read_event(event, tab)
                if end or dialect.is_last(event):
                    end += content
                elif content:
                    tab.offered()
                    yield content
                    if tab.taken():
                        await asyncio.sleep(GONE_WITHIN_S)
            if end:
                end += await after_the_last(events)
                break
            ready = monotonic()
    except EngineUnavailable:
        passed.failed()
        dialect.broke_off(tab)
        raise
    passage.over(passed, status)
    await resources.aclose()
    if end:
        yield end
