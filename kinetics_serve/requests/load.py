"""What a request is expected to keep busy, before it runs."""

from collections.abc import Mapping
from typing import Any

from kinetics_serve.engine.served_model import ServedModel
from kinetics_serve.requests.admission import Load
from kinetics_serve.requests.fields import as_read_by_vllm
from kinetics_serve.strategies.arm import Arm

TYPICAL_TOKENS = 2048
"""A sample is expected to end by then: few use up a long context, which is all that many requests state."""

BYTES_PER_TOKEN = 4

_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def budgeted(arm: Arm, budget: int) -> Load:
    """As many samples as the budget, in eFLOPs, is expected to cover."""
    each = arm.worst_case(min(arm.max_tokens, TYPICAL_TOKENS))
    samples = max(1, min(arm.max_samples, budget // each))
    return Load(samples, min(budget, samples * each))


def plain(body: Mapping[str, Any], size: int, served: ServedModel) -> Load:
    """A request without a budget, whose body has `size` bytes and has not been checked."""
    limit = next(filter(None, (_count(body.get(name)) for name in _LIMITS)), TYPICAL_TOKENS)
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    samples = prompts * max(_count(body.get(name)) or 1 for name in ("n", "best_of"))
    if served.price is None:
        return Load(samples)
    context = served.card.max_model_len or served.price.architecture.max_context or 2**31
    prompt_tokens = min(max(1, size // BYTES_PER_TOKEN // prompts), context)
    each = served.price.sample(prompt_tokens, min(limit, TYPICAL_TOKENS, context), served.kv)
    return Load(samples, samples * served.price.eflops(each))


def _count(value: Any) -> int | None:
    number = as_read_by_vllm(value)
    return number if number is not None and 0 < number <= 2**31 else None
