"""Requests of tenants without a budget: vLLM's own answer, reserved before and paid after like any other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from kinetics_serve.budgeted.prompt import Prompt, boolean, integer
from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine import sparse
from kinetics_serve.engine.pool import ServedModel
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import EngineUnavailable, Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.observability.metrics import PASS_THROUGH, PassedThrough
from kinetics_serve.passthrough.dialects import Completions, Dialect, Messages, Responses
from kinetics_serve.passthrough.forward import answered_headers, forwarded_headers
from kinetics_serve.passthrough.meter import Meter
from kinetics_serve.requests import load
from kinetics_serve.requests.access import tenant_of
from kinetics_serve.requests.deadline import Deadline
from kinetics_serve.requests.disconnect import CancellingStream, telling
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.responses.input import chat_body
from kinetics_serve.requests.services import Services
from kinetics_serve.sources.completion import ChatCompletion, Completion

DEFAULT_COMPLETION_TOKENS = 16
"""What vLLM generates for /v1/completions where max_tokens is left out."""

SPECIAL_TOKENS = 16
"""More than a tokenizer adds to a text."""

FORWARDED_HEADERS = ("accept", "x-request-id")
"""Not accept-encoding: what is compressed can't be metered."""

OWN_HEADERS = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "content-encoding",
    "content-type",
    "date",
    "server",
}

WAITED_S = 0.005
"""An event that took longer to come had not been there already, so no other is."""

GONE_WITHIN_S = 0.05
"""Seconds in which the stream of a client that did not read and is gone now is cancelled, before it is read further."""

COUNTED_OF_A_MESSAGE = (
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "chat_template_kwargs",
)
"""What a prompt of the Messages API is made of."""


async def pass_through(request: Request, tenant: Tenant, completion: type[Completion], body: Json) -> Response:
    """A chat completion or completion. Raises what api.errors knows."""
    services: Services = request.app.state.services
    route = Route(services.pool, body["model"], body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid(f"stream_options must be an object, given: {options!r:.100}", "stream_options")
    deadline = services.deadline()
    async with deadline.awaiting_engine():
        meter = await _meter(route, tenant, completion, body)
    if boolean(body, "stream"):
        body = body | {"stream_options": options | {"include_usage": True, "continuous_usage_stats": True}}
    return await _exchange(request, deadline, route, completion.path, body, meter, Completions(options))


async def pass_response_through(request: Request, tenant: Tenant, body: Json) -> Response:
    """A request of the Responses API, priced as the chat completion that it stands for."""
    services: Services = request.app.state.services
    route = Route(services.pool, body["model"], body)
    deadline = services.deadline()
    async with deadline.awaiting_engine():
        meter = await _meter(route, tenant, ChatCompletion, chat_body(body))
    # Another tenant could read what vLLM stores.
    body = body | {"store": False}
    if isinstance(items := body.get("input"), list):  # earlier reasoning is not counted, so not shown again either
        body["input"] = [item for item in items if item.get("type") != "reasoning"]
    return await _exchange(request, deadline, route, "/v1/responses", body, meter, Responses(body))


async def pass_message_through(request: Request, tenant: Tenant, body: Json) -> Response:
    """A request of Anthropic's Messages API. Raises what api.errors knows."""
    services: Services = request.app.state.services
    route = Route(services.pool, body["model"], body)
    max_tokens = integer(body, "max_tokens", 1, 2**31)
    if max_tokens is None:
        raise invalid("max_tokens is missing", "max_tokens")
    counted: Json = {key: body[key] for key in COUNTED_OF_A_MESSAGE if key in body}
    deadline = services.deadline()
    async with deadline.awaiting_engine():
        answer = await route.ask(lambda upstream: upstream.count_message(counted))
    prompt = _Length(1, _context(route.served))
    if isinstance(tokens := answer.get("input_tokens"), int):
        prompt = _Length(tokens, tokens)
    meter = _priced(route.served, tenant, [prompt], 1, max_tokens, _kv_policy(body, route.served.kv))
    return await _exchange(request, deadline, route, "/v1/messages", body, meter, Messages(body))


async def _exchange(
    request: Request,
    deadline: Deadline,
    route: Route,
    path: str,
    body: Json,
    meter: Meter,
    dialect: Dialect,
) -> Response:
    """Sends `body`; reserves before and settles after."""
    services: Services = request.app.state.services
    tenant = tenant_of(request)
    assert services.ledger is not None
    assert tenant is not None, "only tenants are metered"
    stream = boolean(body, "stream")
    forwarded = forwarded_headers(request, FORWARDED_HEADERS)
    forwarded["accept-encoding"] = "identity"
    passed = services.metrics.passed_through(route.served.name)
    async with AsyncExitStack() as stack:
        expected = load.plain(body, int(request.headers.get("content-length", 0)), route.served)
        await stack.enter_async_context(services.admitted(tenant, expected, deadline))
        stack.enter_context(passed)
        async with deadline.awaiting_engine():
            charge = Charge(services.ledger, tenant, route.served.name, PASS_THROUGH, meter.reserved, meter.spent)
            await stack.enter_async_context(charge)
            try:
                opening = route.open(path, body, forwarded, streamed=stream)
                response, pieces = await stack.enter_async_context(opening)
                headers = answered_headers(response, OWN_HEADERS)
                media_type = response.headers.get("content-type")
                if response.status >= 400:
                    meter.refused()
                if not stream or response.status >= 400:
                    content = b"".join([piece async for piece in pieces])
                    dialect.read_answer(content, meter)
                    passed.began()
                    passed.answered(response.status)
                    return Response(content, response.status, headers, media_type)
            except EngineUnavailable:
                meter.refused()
                raise
        if dialect.counts_tokens:
            meter.accepted()
        resources = stack.pop_all()
    status = response.status
    events = telling(path, _events(pieces, status, meter, dialect, passed, resources))
    return CancellingStream(events, resources.aclose, status_code=status, headers=headers, media_type=media_type)


async def _meter(route: Route, tenant: Tenant, completion: type[Completion], body: Json) -> Meter:
    """Prices a request's worst case: its prompt as the engine counts it, and all the tokens that it may generate."""
    n = max(integer(body, field, 1, 2**31) or 1 for field in ("n", "best_of"))
    stated = integer(body, "max_tokens", 0, 2**31)
    if completion is ChatCompletion:
        stated = max(stated or 0, integer(body, "max_completion_tokens", 1, 2**31) or 0) or None
    elif "max_tokens" not in body:
        stated = DEFAULT_COMPLETION_TOKENS
    served = route.served
    prompts = await _prompts(route, completion, body, _context(served))
    return _priced(served, tenant, prompts, n, stated, _kv_policy(body, served.kv))


def _context(served: ServedModel) -> int:
    return served.card.max_model_len or (served.price.architecture.max_context if served.price else None) or 2**31


def _priced(
    served: ServedModel, tenant: Tenant, prompts: list["_Length"], n: int, stated: int | None, kv: KVPolicy
) -> Meter:
    """stated: the client's limit for each of a prompt's n completions, in tokens."""
    if served.price is None and tenant.limits.priced:
        raise ApiError(
            503, "engine_unavailable", f"requests to {served.name!r} can't be priced, so no quota covers them"
        )
    context = _context(served)
    prompts = [_Length(min(prompt.least, context), min(prompt.most, context)) for prompt in prompts]
    room = context - min(prompt.least for prompt in prompts)
    max_tokens = room if stated is None else min(stated, room)
    # A prompt and its completion fit the context together, and a token costs more in the completion.
    prompt_tokens = sum(min(prompt.most, context - max_tokens) for prompt in prompts)
    return Meter(served.price, kv, len(prompts), prompt_tokens, n, max_tokens)


def _kv_policy(body: Json, engine: KVPolicy) -> KVPolicy:
    """How the engine, whose own policy is `engine`, attends in this request."""
    xargs = body.get("vllm_xargs") or {}
    if not isinstance(xargs, dict):
        raise invalid(f"vllm_xargs must be an object, given: {xargs!r:.100}", "vllm_xargs")
    tokens = integer(xargs, "kv_budget", 0, 2**31)
    if tokens is None or engine.budget is None:
        return engine
    return DENSE if tokens == 0 else sparse.requested(max(tokens, sparse.MIN_KV_BUDGET), engine)


@dataclass(frozen=True, slots=True)
class _Length:
    """A prompt has at least and at most so many tokens."""

    least: int
    most: int


async def _prompts(route: Route, completion: type[Completion], body: Json, context: int) -> list[_Length]:
    """How long each of the request's prompts is: counted by the engine where it is one text, bounded elsewhere."""
    unknown = _Length(1, context)
    prompt = body.get("prompt")
    chat = completion is ChatCompletion
    if (chat and not _has_media(body.get("messages"))) or (not chat and isinstance(prompt, str)):
        counted = Prompt(completion, body, None, None, False, False, False)
        tokens = min(await route.ask(counted.count_tokens), context)
        return [_Length(tokens, tokens)]
    if chat or body.get("prompt_embeds") is not None or not isinstance(prompt, list):
        return [unknown]
    if all(isinstance(token, int) for token in prompt):
        return [_bounds(prompt, context)]
    return [_bounds(each, context) if isinstance(each, str | list) else unknown for each in prompt]


def _bounds(prompt: str | list[Any], context: int) -> _Length:
    if isinstance(prompt, list):
        return _Length(min(len(prompt), context), min(len(prompt), context))
    # A token stands for at least one byte.
    return _Length(1, min(len(prompt.encode(errors="replace")) + SPECIAL_TOKENS, context))


def _has_media(messages: Any) -> bool:
    if not isinstance(messages, list):
        return True
    contents = [message.get("content") if isinstance(message, dict) else None for message in messages]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return not all(isinstance(part, dict) and part.get("type") in ("text", "refusal") for part in parts)


async def _events(
    pieces: AsyncIterator[bytes],
    status: int,
    meter: Meter,
    dialect: Dialect,
    passed: PassedThrough,
    resources: AsyncExitStack,
) -> AsyncGenerator[bytes, None]:
    """The stream's events. Settled before the client sees the end."""
    end = b""
    ready = monotonic()
    try:
        async for event in _split(pieces):
            if monotonic() - ready > WAITED_S:
                meter.caught_up()
            passed.began()
            event = dialect.read_event(event, meter)
            if dialect.is_last(event):
                end = event
            elif event:
                meter.offered()
                yield event
                if meter.taken():
                    await asyncio.sleep(GONE_WITHIN_S)
            ready = monotonic()
    except EngineUnavailable:
        passed.failed()
        if not dialect.counts_tokens:
            meter.refused()
        raise
    passed.answered(status)
    await resources.aclose()
    if end:
        yield end


async def _split(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Server-sent events, each with the empty line that ends it."""
    buffer = b""
    async for piece in pieces:
        *events, buffer = (buffer + piece).split(b"\n\n")
        for event in events:
            yield event + b"\n\n"
    if buffer:
        yield buffer
