"""How many tokens a prompt has, by the engine's own count."""

from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.requests.errors import invalid
from kinetics_serve.sources.completion import ChatCompletion, Completion

_CHAT_TEMPLATE_FIELDS = (
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "chat_template",
    "chat_template_kwargs",
    "tools",
)

_CHAT_TEMPLATE_VARIABLES = ("documents", "reasoning_effort")
"""Fields that vLLM hands to the chat template, but does not take in `/tokenize` as they are."""


async def count_tokens(upstream: Upstream, completion: type[Completion], body: Json) -> int:
    """The tokens of the prompt in `body` as the upstream's tokenizer and chat template make them. Raises ApiError."""
    if completion is ChatCompletion:
        fields = {key: body[key] for key in _CHAT_TEMPLATE_FIELDS if body.get(key) is not None}
        variables = {key: body[key] for key in _CHAT_TEMPLATE_VARIABLES if body.get(key) is not None}
        if not isinstance(body.get("chat_template_kwargs") or {}, dict):
            raise invalid("chat_template_kwargs must be an object", "chat_template_kwargs")
        if variables:
            fields["chat_template_kwargs"] = variables | (body.get("chat_template_kwargs") or {})
        return await upstream.count_tokens({"model": body["model"], "messages": body["messages"], **fields})
    if isinstance(body["prompt"], list):
        return len(body["prompt"])
    special = {"add_special_tokens": body["add_special_tokens"]} if "add_special_tokens" in body else {}
    return await upstream.count_tokens({"model": body["model"], "prompt": body["prompt"], **special})
