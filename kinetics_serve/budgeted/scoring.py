"""The scorer that a request asks for, priced and ready."""

from kinetics_serve.budgeted.options import (
    ConfidenceScorer,
    HttpScorer,
    JudgeScorer,
    KineticsOptions,
    RewardModelScorer,
)
from kinetics_serve.budgeted.prompt import Prompt
from kinetics_serve.cost import Price
from kinetics_serve.engine.pool import ModelNotFound, ServedModel
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.services import Services
from kinetics_serve.scorers.judge import GENERATED_TOKENS, Judge, judge_messages
from kinetics_serve.scorers.reward_model import RewardModel, question
from kinetics_serve.scorers.scorer import MARGIN_TOKENS, Scorer, ScorerPrompt
from kinetics_serve.scorers.verifier import Verifier, host_of
from kinetics_serve.sources.completion import ChatCompletion


async def scorer_of(options: KineticsOptions, prompt: Prompt, served: ServedModel, services: Services) -> Scorer | None:
    """None for the model's own confidence, which samples bring along. served: the model that generates.

    Raises what api.errors knows.
    """
    stated = options.scorer
    if isinstance(stated, ConfidenceScorer):
        return None
    messages = _messages(prompt)
    if isinstance(stated, HttpScorer):
        _check_allowed(stated.url, services.settings.verifier_hosts)
        return Verifier(services.client, stated.url, messages, stated.timeout_s)
    fields: Json = {key: prompt.body[key] for key in ("cache_salt", "priority") if key in prompt.body}
    upstream, model, price = _server(stated.model or served.name, services)
    context = model.card.max_model_len or price.architecture.max_context or 2**31
    if isinstance(stated, JudgeScorer):
        asked: Json = {"messages": judge_messages(messages, "", stated.criteria)}
        frame = ScorerPrompt(price, await _count(upstream, model.name, asked), GENERATED_TOKENS, context)
        _check_room(frame, model.name)
        return Judge(upstream, model.name, messages, stated.criteria, frame, fields)
    asked = {"prompt": question(messages)} if stated.api == "score" else {"messages": messages}
    frame = ScorerPrompt(price, await _count(upstream, model.name, asked), 0, context)
    _check_room(frame, model.name)
    return RewardModel(upstream, model.name, stated.api, messages, frame, fields)


def scorer_model(options: KineticsOptions) -> str | None:
    """The model that the scorer names, if it names one."""
    stated = options.scorer
    return stated.model if isinstance(stated, RewardModelScorer | JudgeScorer) else None


def _messages(prompt: Prompt) -> list[Json]:
    if prompt.completion is ChatCompletion:
        messages: list[Json] = prompt.body["messages"]
        return messages
    text = prompt.body["prompt"]
    if not isinstance(text, str):
        raise invalid("a scorer reads the prompt: with token ids as the prompt, leave the scorer out", "prompt")
    return [{"role": "user", "content": text}]


def _server(name: str, services: Services) -> tuple[Upstream, ServedModel, Price]:
    try:
        upstream, model = services.pool.pick(name)
    except ModelNotFound as error:
        raise ApiError(404, "model_not_found", f"the scorer's model: {error}", "kinetics.scorer.model") from None
    if model.price is None:
        raise ApiError(
            503,
            "engine_unavailable",
            f"the scorer's model {name!r} can't be priced: {model.problem}",
            "kinetics.scorer",
        )
    return upstream, model, model.price


async def _count(upstream: Upstream, model: str, asked: Json) -> int:
    return await upstream.count_tokens({"model": model, **asked})


def _check_room(prompt: ScorerPrompt, model: str) -> None:
    if prompt.frame_tokens + MARGIN_TOKENS + prompt.generated > prompt.context:
        raise invalid(
            f"the question has {prompt.frame_tokens} tokens for the scorer {model!r}, whose context of "
            f"{prompt.context} leaves no room for an answer",
            "kinetics.scorer",
        )


def _check_allowed(url: str, allowed: frozenset[str]) -> None:
    host = host_of(url)
    if host not in allowed:
        there = ", ".join(sorted(allowed)) or "none"
        raise invalid(
            f"the host {host} is not one that this server's administrator allows as a verifier; allowed: {there}. "
            "They are set with --verifier HOST:PORT",
            "kinetics.scorer.url",
        )
