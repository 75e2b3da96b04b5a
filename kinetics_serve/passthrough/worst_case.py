"""The most that a request without a budget can cost: its prompt as the engine counts it, and all it may generate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine import sparse
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.served_model import ServedModel
from kinetics_serve.engine.upstream import Json
from kinetics_serve.engine.usage import count
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.passthrough.tab import Tab
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.fields import as_read_by_vllm, integer
from kinetics_serve.requests.prompt_tokens import count_tokens
from kinetics_serve.sources.completion import ChatCompletion, Completion, TextCompletion

DEFAULT_COMPLETION_TOKENS = 16
"""What vLLM generates for /v1/completions where max_tokens is left out."""

SPECIAL_TOKENS = 16
"""More than a tokenizer adds to a text."""

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


UNCOUNTED_EVENTS = 16
"""Of one completion's stream, that have no token of their own: its beginning, its end, the end of a tool call."""


@dataclass(frozen=True, slots=True)
class _Length:
    """Of a prompt, in tokens."""

    least: int
    most: int


async def of_completion(route: Route, tenant: Tenant, completion: type[Completion], body: Json) -> Tab:
    """A chat completion's or completion's. Raises KineticsError."""
    n = max(integer(body, field, 1, 2**31) or 1 for field in ("n", "best_of"))
    stated = integer(body, "max_tokens", 0, 2**31)
    if completion is ChatCompletion:  # as vLLM takes them: the newer name holds wherever it is stated
        newer = integer(body, "max_completion_tokens", 0, 2**31)
        stated = stated if newer is None else newer
    elif "max_tokens" not in body:
        stated = DEFAULT_COMPLETION_TOKENS
    served = route.served
    prompts = await _prompts(route, completion, body, _context(served))
    if body.get("truncate_prompt_tokens") is not None:  # what is cut off the prompt leaves room for the completion
        prompts = [_Length(1, prompt.most) for prompt in prompts]
    return _priced(served, tenant, prompts, n, stated, _kv_policy(body, served))


async def of_message(route: Route, tenant: Tenant, body: Json) -> Tab:
    """A request's of Anthropic's Messages API. Raises KineticsError."""
    max_tokens = integer(body, "max_tokens", 1, 2**31)
    if max_tokens is None:
        raise invalid("max_tokens is missing", "max_tokens")
    counted: Json = {key: body[key] for key in COUNTED_OF_A_MESSAGE if key in body}
    answer = await route.ask(lambda upstream: upstream.count_message(counted))
    prompt = _Length(1, _context(route.served))
    if (tokens := count(answer, "input_tokens")) is not None:
        prompt = _Length(tokens, tokens)
    return _priced(route.served, tenant, [prompt], 1, max_tokens, _kv_policy(body, route.served))


def events(path: str, body: Mapping[str, Any], served: ServedModel) -> int | None:
    """The most events that a stream of completions can have, each with a token at least. None for other APIs, whose
    events are not counted by tokens. Fields that make no sense are the engine's to refuse: they count as left out.
    """
    if path == ChatCompletion.path:
        stated = body.get("max_tokens") if body.get("max_completion_tokens") is None else body["max_completion_tokens"]
        prompts: Any = None
        embeds = 0
    elif path == TextCompletion.path:
        stated, prompts = body.get("max_tokens", DEFAULT_COMPLETION_TOKENS), body.get("prompt")
        embeds = _embeds(body)
    else:
        return None
    context = _context(served)
    limit = as_read_by_vllm(stated)
    tokens = context if limit is None else min(limit, context)
    several = isinstance(prompts, list) and not all(isinstance(token, int) for token in prompts)
    completions = max(as_read_by_vllm(body.get(field)) or 1 for field in ("n", "best_of"))
    of_prompts = embeds + (len(prompts) if several else 1)
    return (tokens + UNCOUNTED_EVENTS) * max(completions, 1) * of_prompts


def _embeds(body: Mapping[str, Any]) -> int:
    """How many prompts a completion has as embeddings, beside those in `prompt`."""
    embeds = body.get("prompt_embeds")
    return len(embeds) if isinstance(embeds, list) else int(embeds is not None)


def _context(served: ServedModel) -> int:
    return served.card.max_model_len or (served.price.architecture.max_context if served.price else None) or 2**31


def _priced(
    served: ServedModel, tenant: Tenant, prompts: list[_Length], n: int, stated: int | None, kv: KVPolicy
) -> Tab:
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
    return Tab(served.price, kv, len(prompts), prompt_tokens, n, max_tokens)


def _kv_policy(body: Json, served: ServedModel) -> KVPolicy:
    """How the engine attends in this request."""
    xargs = body.get("vllm_xargs") or {}
    if not isinstance(xargs, dict):
        raise invalid(f"vllm_xargs must be an object, given: {xargs!r:.100}", "vllm_xargs")
    tokens = integer(xargs, "kv_budget", 0, 2**31)
    if tokens is not None and type(xargs["kv_budget"]) is not int:  # our plugin reads it, and more strictly than vLLM
        raise invalid(f"kv_budget must be a whole number, given: {xargs['kv_budget']!r}", "kv_budget")
    if tokens is None or served.info.sparse is None:
        return served.kv
    return DENSE if tokens == 0 else sparse.requested(max(tokens, served.info.sparse.min_kv_budget), served.kv)


async def _prompts(route: Route, completion: type[Completion], body: Json, context: int) -> list[_Length]:
    """How long each of the request's prompts is: counted by the engine where it is one text, bounded elsewhere."""
    unknown = _Length(1, context)
    prompt = body.get("prompt")
    chat = completion is ChatCompletion
    if not chat and (embeds := _embeds(body)):
        rest = {key: value for key, value in body.items() if key != "prompt_embeds"}
        return [unknown] * embeds + (await _prompts(route, completion, rest, context) if prompt is not None else [])
    if (chat and not _has_media(body.get("messages"))) or (not chat and isinstance(prompt, str)):
        tokens = min(await route.ask(lambda upstream: count_tokens(upstream, completion, body)), context)
        return [_Length(tokens, tokens)]
    if chat or not isinstance(prompt, list):
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
