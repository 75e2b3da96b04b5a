"""Requests of tenants without a budget: vLLM's own answer, reserved before and paid after like any other."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from kinetics_serve.api.disconnect import CancellingStream
from kinetics_serve.api.errors import ApiError, invalid
from kinetics_serve.api.meter import NO_CHOICES, USAGE, Meter
from kinetics_serve.api.prompt import Prompt, boolean, integer
from kinetics_serve.api.services import Services
from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine import sparse
from kinetics_serve.engine.completion import ChatCompletion, Completion
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import EngineUnavailable, Json
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.limits import Tenant

STRATEGY = "pass_through"
"""What a request without a budget is booked under."""

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


async def pass_through(request: Request, tenant: Tenant, completion: type[Completion], body: Json) -> Response:
    """Raises what api.errors knows."""
    services: Services = request.app.state.services
    assert services.ledger is not None, "only a ledger has tenants"
    route = Route(services.pool, body["model"], body)
    stream = boolean(body, "stream")
    meter = await _meter(route, tenant, completion, body)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise invalid(f"stream_options must be an object, given: {options!r:.100}", "stream_options")
    sent = body
    if stream:
        sent = body | {"stream_options": options | {"include_usage": True, "continuous_usage_stats": True}}
    forwarded = {name: request.headers[name] for name in FORWARDED_HEADERS if name in request.headers}
    forwarded["accept-encoding"] = "identity"
    async with AsyncExitStack() as stack:
        charge = Charge(services.ledger, tenant, route.served.name, STRATEGY, meter.reserved, meter.spent)
        await stack.enter_async_context(charge)
        try:
            opening = route.open(completion.path, sent, forwarded, streamed=stream)
            response, pieces = await stack.enter_async_context(opening)
            headers = {key: value for key, value in response.headers.items() if key.lower() not in OWN_HEADERS}
            media_type = response.headers.get("content-type")
            if response.status_code >= 400:
                meter.refused()
            if not stream or response.status_code >= 400:
                content = b"".join([piece async for piece in pieces])
                meter.read_total(content)
                return Response(content, response.status_code, headers, media_type)
        except EngineUnavailable:
            meter.refused()
            raise
        meter.accepted()
        resources = stack.pop_all()
    events = _events(pieces, meter, options, resources)
    status = response.status_code
    return CancellingStream(events, resources.aclose, status_code=status, headers=headers, media_type=media_type)


async def _meter(route: Route, tenant: Tenant, completion: type[Completion], body: Json) -> Meter:
    """Prices a request's worst case: its prompt as the engine counts it, and all the tokens that it may generate."""
    served = route.served
    if served.price is None and tenant.limits.priced:
        raise ApiError(
            503, "engine_unavailable", f"requests to {served.name!r} can't be priced, so no quota covers them"
        )
    n = max(integer(body, field, 1, 2**31) or 1 for field in ("n", "best_of"))
    stated = integer(body, "max_tokens", 0, 2**31)
    if completion is ChatCompletion:
        stated = max(stated or 0, integer(body, "max_completion_tokens", 1, 2**31) or 0) or None
    elif "max_tokens" not in body:
        stated = DEFAULT_COMPLETION_TOKENS
    context = served.card.max_model_len or (served.price.architecture.max_context if served.price else None) or 2**31
    prompts = await _prompts(route, completion, body, context)
    room = context - min(prompt.least for prompt in prompts)
    max_tokens = room if stated is None else min(stated, room)
    # A prompt and its completion fit the context together, and a token costs more in the completion.
    prompt_tokens = sum(min(prompt.most, context - max_tokens) for prompt in prompts)
    return Meter(served.price, _kv_policy(body, served.kv), len(prompts), prompt_tokens, n, max_tokens)


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
    pieces: AsyncIterator[bytes], meter: Meter, options: Json, resources: AsyncExitStack
) -> AsyncGenerator[bytes, None]:
    """The stream's events with as much usage as the client asked for. Settled before the client sees the end."""
    wanted, continuous = bool(options.get("include_usage")), bool(options.get("continuous_usage_stats"))
    end = b""
    async for event in _split(pieces):
        meter.read(event)
        if NO_CHOICES.search(event):
            if not wanted:
                continue
        elif not (wanted and continuous):
            event = USAGE.sub(b"", event)
        if event.startswith(b"data: [DONE]"):
            end = event
        else:
            yield event
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
