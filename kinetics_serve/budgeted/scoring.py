"""The models that judge a request's samples, priced and ready: its scorer, and what compares free answers."""

from kinetics_serve.budgeted.options import KineticsOptions
from kinetics_serve.budgeted.prompt import Prompt
from kinetics_serve.engine.pool import ModelNotFound
from kinetics_serve.engine.served_model import ServedModel
from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import ApiError
from kinetics_serve.requests.services import Services
from kinetics_serve.scorers.meaning import meaning_of
from kinetics_serve.scorers.scorer import Scorer, ScorerRefused
from kinetics_serve.scorers.spec import CONFIDENCE, SCORERS, ScorerContext, ScorerEngine
from kinetics_serve.sources.completion import ChatCompletion
from kinetics_serve.sources.grouped import MeaningGroups


async def scorer_of(options: KineticsOptions, prompt: Prompt, served: ServedModel, services: Services) -> Scorer | None:
    """None for the model's own confidence, which samples bring along. served: the model that generates.

    Raises KineticsError.
    """
    stated = options.scorer
    if stated.kind == CONFIDENCE:
        return None
    return await SCORERS.get(stated.kind).make(stated, _context(prompt, served, services, "kinetics.scorer"))


async def groups_of(
    options: KineticsOptions, prompt: Prompt, served: ServedModel, services: Services
) -> MeaningGroups | None:
    """What groups free answers by their meaning; None where the request does not ask for that. Raises KineticsError."""
    stated = options.answer.meaning
    if stated is None:
        return None
    where = "kinetics.answer.meaning"
    try:
        meaning = await meaning_of(stated, _context(prompt, served, services, where))
    except ScorerRefused as error:
        error.param = where
        raise
    return MeaningGroups(meaning, stated.max_groups)


def _context(prompt: Prompt, served: ServedModel, services: Services, where: str) -> ScorerContext:
    """where: the request's field that names the model."""
    return ScorerContext(
        _messages(prompt),
        served.name,
        {key: prompt.body[key] for key in ("cache_salt", "priority") if key in prompt.body},
        lambda name: _engine(name, services, where),
        services.client,
        services.settings.verifier_hosts,
    )


def _messages(prompt: Prompt) -> list[Json]:
    if prompt.completion is ChatCompletion:
        messages: list[Json] = prompt.body["messages"]
        return messages
    text = prompt.body["prompt"]
    if not isinstance(text, str):
        raise ScorerRefused("a scorer reads the prompt: with token ids as the prompt, leave the scorer out")
    return [{"role": "user", "content": text}]


def _engine(name: str, services: Services, where: str) -> ScorerEngine:
    try:
        upstream, model = services.pool.pick(name)
    except ModelNotFound as error:
        error = ModelNotFound(f"the model of {where}: {error}")
        error.param = f"{where}.model"
        raise error from None
    if model.price is None:
        message = f"the model {name!r} of {where} can't be priced: {model.problem}"
        raise ApiError(503, "engine_unavailable", message, where)
    context = model.card.max_model_len or model.price.architecture.max_context or 2**31
    return ScorerEngine(upstream, model.name, model.price, context)
