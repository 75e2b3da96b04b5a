"""What a budgeted request asks the model, and what of it may be combined with a budget."""

from dataclasses import dataclass
from typing import Any

from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.requests.errors import invalid
from kinetics_serve.requests.fields import boolean, integer
from kinetics_serve.requests.prompt_tokens import count_tokens
from kinetics_serve.sources.completion import MAX_TOP_LOGPROBS, ChatCompletion, Completion
from kinetics_serve.strategies.confidence import MIN_WINDOW_TOKENS

_OURS = (
    "kinetics",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "include_reasoning",  # without it, vLLM tells of no token while a model thinks, so that none could be counted
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt and sampling parameters, checked."""

    completion: type[Completion]
    body: Json
    """What goes to vLLM, but for what differs from sample to sample."""
    max_tokens: int | None
    """The client's limit per sample; None if it set none."""
    top_logprobs: int | None
    """See Completion."""
    stream: bool
    include_usage: bool
    greedy: bool
    """Decoded without randomness, so that every sample is the same."""
    shows_reasoning: bool

    def new_completion(self, window: int = MIN_WINDOW_TOKENS) -> Completion:
        """Where a sample's chunks are put together. window: see Completion."""
        return self.completion(self.top_logprobs, window, self.shows_reasoning)

    async def count_tokens(self, upstream: Upstream) -> int:
        """The tokens of the prompt as the upstream's tokenizer and chat template make them."""
        return await count_tokens(upstream, self.completion, self.body)


def prompt_of(body: Json, completion: type[Completion], model: str) -> Prompt:
    """The prompt of a budgeted request, for `model`. Raises ApiError for what a budget can't be combined with."""
    max_tokens = integer(body, "max_completion_tokens", 1, 2**31) or integer(body, "max_tokens", 1, 2**31)
    n = integer(body, "n", 1, 2**31)
    if n not in (None, 1):
        raise invalid(
            f"n is {n}, but a request with a budget has one answer: leave n out and state "
            "kinetics.max_samples and kinetics.include_samples to see every sample",
            "n",
        )
    xargs = body.get("vllm_xargs") or {}
    if not isinstance(xargs, dict):
        raise invalid(f"vllm_xargs must be an object, given: {xargs!r:.100}", "vllm_xargs")
    if "kv_budget" in xargs:
        raise invalid(
            "with a budget, state the KV budget as kinetics.kv_budget, where it is on the bill", "vllm_xargs.kv_budget"
        )
    for field in ("echo", "use_beam_search", "best_of", "truncate_prompt_tokens", "prompt_embeds"):
        if body.get(field):
            raise invalid(f"{field} can't be combined with a budget: leave it out", field)
    sent = {key: value for key, value in body.items() if key not in _OURS} | {"model": model}
    if completion is ChatCompletion:
        _check_messages(body.get("messages"))
        wanted = boolean(body, "logprobs")
        top_logprobs = (integer(body, "top_logprobs", 0, MAX_TOP_LOGPROBS) or 0) if wanted else None
    else:
        sent["prompt"] = _text_prompt(body.get("prompt"))
        top_logprobs = integer(body, "logprobs", 0, MAX_TOP_LOGPROBS)
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise invalid(f"stream_options must be an object, given: {stream_options!r}", "stream_options")
    integer(body, "seed", -(2**63), 2**63 - 1)
    return Prompt(
        completion=completion,
        body=sent,
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
        stream=boolean(body, "stream"),
        include_usage=bool(stream_options.get("include_usage")),
        greedy=body.get("temperature") == 0,
        shows_reasoning=body.get("include_reasoning") is None or boolean(body, "include_reasoning"),
    )


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must be a list of at least one message", "messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise invalid(f"messages.{index} must be an object with role and content", f"messages.{index}")
        if not isinstance(message.get("role"), str):
            raise invalid(f"messages.{index}.role must be a text such as user or system", f"messages.{index}.role")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise invalid(f"messages.{index}.content must be a text or a list of parts", f"messages.{index}.content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
                raise invalid(
                    "a request with a budget takes text only: what an image or a sound costs is not known before "
                    "it runs. Leave the budget out, or the media",
                    f"messages.{index}.content",
                )


def _text_prompt(prompt: Any) -> str | list[int]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return prompt
    raise invalid("prompt must be one text or one list of token ids: with a budget, send prompts one by one", "prompt")
