"""The models and KV budgets that a budgeted request may run on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from kinetics_serve.budgeted.options import KineticsOptions
from kinetics_serve.budgeted.prompt import Prompt, prompt_of
from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine import sparse
from kinetics_serve.engine.pool import AUTO_MODEL, Pool
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.served_model import ServedModel
from kinetics_serve.engine.upstream import Json
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.services import Services
from kinetics_serve.scorers.scorer import Scorer
from kinetics_serve.sources.completion import ChatCompletion, Completion
from kinetics_serve.sources.forced import Forcing, extra_of
from kinetics_serve.sources.grouped import MeaningGroups
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.spec import AUTO

MayUse = Callable[[str], bool]
"""Whether the client may use a model of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveArm(Arm):
    """An arm of the upstreams: where its samples are sent, and what."""

    route: Route
    prompt: Prompt

    def attending(self, kv: KVPolicy) -> "LiveArm":
        """The same model with a KV budget that the engine is told."""
        fields = sparse.request_fields(self.prompt.body, kv)
        return replace(self, kv=kv, prompt=replace(self.prompt, body=self.prompt.body | fields))

    def forcing(self, force_tokens: int) -> Forcing:
        """What it costs to ask a sample that ran out of tokens for its answer."""
        context = self.route.served.card.max_model_len or self.price.architecture.max_context or 2**31
        return Forcing(self.price, self.kv, self.prompt_tokens, force_tokens, context)

    def with_extra(
        self, options: KineticsOptions, scorer: Scorer | None, groups: MeaningGroups | None = None
    ) -> "LiveArm":
        """The arm, with what forcing its samples' answers, grouping and scoring them may cost. Raises ApiError."""
        forcing = None
        if options.answer.force_tokens:
            for field in ("tools", "response_format"):
                if self.prompt.body.get(field):
                    message = f"an answer that is forced is text: leave out {field}"
                    raise invalid(message, "kinetics.answer.force_tokens")
            if not isinstance(self.prompt.body.get("prompt", ""), str):
                raise invalid("an answer can't be forced after token ids: state text", "kinetics.answer.force_tokens")
            forcing = self.forcing(options.answer.force_tokens).worst_case
        grouping = (lambda tokens: groups.worst_case) if groups is not None else None
        return replace(self, extra=extra_of(forcing, grouping, scorer.worst_case if scorer is not None else None))


def auto_models(pool: Pool, calibration: Calibration | None, may_use: MayUse) -> list[str]:
    """The models that `kinetics-auto` chooses among: served, calibrated, and allowed."""
    points = calibration.served if calibration is not None else ()
    known = {arm.model for point in points for arm in point.arms}
    return [model.name for model in pool.models() if model.name in known and model.price and may_use(model.name)]


async def arms_of(
    body: Json, options: KineticsOptions, completion: type[Completion], services: Services, may_use: MayUse
) -> list[LiveArm]:
    """What a request may run on, the first being what it asks for. Raises KineticsError."""
    model = None if body.get("model") == "" else body.get("model")  # to vLLM, an empty name is none
    if model is not None and not isinstance(model, str):
        raise invalid(f"model must be a text, given: {model!r:.100}", "model")
    calibration = services.settings.calibration
    if model != AUTO_MODEL:
        arm = await _arm(body, options, completion, services, model)
        return _with_calibrated_budgets([arm], options, calibration)
    names = auto_models(services.pool, calibration, may_use)
    if not names:
        raise ApiError(
            404,
            "model_not_found",
            f"{AUTO_MODEL} needs a calibration that knows a model served here: name a model, or start the server with "
            "--calibration",
            "model",
        )
    if options.strategy != AUTO or body.get("temperature") == 0:
        raise invalid(
            f"{AUTO_MODEL} chooses the strategy too: leave it at auto, and the temperature above 0",
            "kinetics.strategy" if options.strategy != AUTO else "temperature",
        )
    arms = [await _arm(body, options, completion, services, name) for name in names]
    arms.sort(key=lambda arm: arm.dense(arm.max_tokens))
    return _with_calibrated_budgets(arms, options, calibration)


async def _arm(
    body: Json, options: KineticsOptions, completion: type[Completion], services: Services, model: str | None
) -> LiveArm:
    """Checks a budgeted request, chooses its server, and prices its prompt."""
    route = Route(services.pool, model, body)
    served = route.served
    if served.price is None:
        raise ApiError(
            503,
            "engine_unavailable",
            f"requests to {served.name!r} can't be priced: {served.problem}. The server's administrator can name "
            "the model's folder or Hugging Face name with --architecture",
        )
    prompt = prompt_of(body, completion, served.name)
    if prompt.greedy and options.strategy not in (AUTO, "single"):
        raise invalid(
            f"temperature 0 gives the same sample every time, so {options.strategy} would pay for copies: state a "
            'temperature above 0, or the strategy "single"',
            "temperature",
        )
    if isinstance(options.kv_budget, int):
        _check_kv_budget(options.kv_budget, served)
    prompt_tokens = await route.ask(prompt.count_tokens)
    context = served.card.max_model_len or served.price.architecture.max_context
    room = context - prompt_tokens if context is not None else 2**31
    if room < 1:
        raise invalid(
            f"the prompt has {prompt_tokens} tokens, which leaves no room for an answer in the context of {context} "
            f"tokens of {served.name!r}: shorten it",
            "messages" if completion is ChatCompletion else "prompt",
        )
    arm = LiveArm(
        served.name,
        served.kv,
        served.price,
        prompt_tokens,
        min(prompt.max_tokens or room, room),
        options.max_samples,
        route=route,
        prompt=prompt,
    )
    return arm if options.kv_budget == "auto" else arm.attending(sparse.requested(options.kv_budget, served.kv))


def _check_kv_budget(tokens: int, served: ServedModel) -> None:
    """Raises ApiError where the model's engine does not attend to so many tokens when asked to."""
    if served.info.sparse is None:
        raise invalid(
            f"the engine that serves {served.name!r} runs without sparse attention, so a KV budget of {tokens} tokens "
            'has no effect there: leave kv_budget out or state "dense"',
            "kinetics.kv_budget",
        )
    if tokens < served.info.sparse.min_kv_budget:
        raise invalid(
            f"a KV budget of {tokens} tokens is less than the engine that serves {served.name!r} can work with: state "
            f"at least {served.info.sparse.min_kv_budget}",
            "kinetics.kv_budget",
        )


def _with_calibrated_budgets(
    arms: list[LiveArm], options: KineticsOptions, calibration: Calibration | None
) -> list[LiveArm]:
    """Where the KV budget is left open: also every calibrated one that a model's engine can run."""
    if calibration is None or options.kv_budget != "auto" or options.strategy != AUTO:
        return arms
    found = {arm.key: arm for arm in arms}
    known = [calibrated.key for point in calibration.served for calibrated in point.arms]
    for arm in arms:
        served = arm.route.served
        least = served.info.sparse.min_kv_budget if served.info.sparse is not None else inf
        for model, budget in known:
            if model != arm.model or (model, budget) in found:
                continue
            if budget is None:
                found[model, budget] = arm.attending(DENSE)
            elif budget >= least:
                found[model, budget] = arm.attending(sparse.requested(budget, served.kv))
    return list(found.values())
