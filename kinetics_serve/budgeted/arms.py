"""The models and KV budgets that a budgeted request may run on, and the plan that is made of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kinetics_serve.budgeted.options import KineticsOptions
from kinetics_serve.budgeted.prompt import Prompt, prompt_of
from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine import sparse
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.pool import AUTO_MODEL, Pool
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.planner.choose import choose_for_accuracy, choose_for_budget, fitting
from kinetics_serve.planner.plan import Plan, plan
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.services import Services
from kinetics_serve.runner.run import Terms
from kinetics_serve.scorers.scorer import Scorer
from kinetics_serve.sources.completion import ChatCompletion, Completion
from kinetics_serve.sources.forced import Forcing, scoring_of

AUTO_MODEL = "kinetics-auto"
"""The model of a request that leaves the choice of one to the calibration."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One model with one KV budget: where it runs, what it is sent, what its samples cost."""

    route: Route
    prompt: Prompt
    terms: Terms

    @property
    def model(self) -> str:
        return self.route.served.name

    @property
    def key(self) -> tuple[str, KVPolicy]:
        return self.model, self.terms.kv

    def attending(self, kv: KVPolicy) -> "Offer":
        """The same model with another KV budget."""
        fields = sparse.request_fields(self.prompt.body, kv, self.route.served.kv)
        prompt = replace(self.prompt, body=self.prompt.body | fields)
        return Offer(self.route, prompt, replace(self.terms, kv=kv))


def auto_models(pool: Pool, calibration: Calibration | None, may_use: Callable[[str], bool]) -> list[str]:
    """The models that `kinetics-auto` chooses among: served, calibrated, and allowed."""
    known = (
        {stage.model for point in calibration.served for stage in point.stages} if calibration is not None else set()
    )
    return [model.name for model in pool.models() if model.name in known and model.price and may_use(model.name)]


async def offers_of(
    body: Json,
    options: KineticsOptions,
    completion: type[Completion],
    services: Services,
    may_use: Callable[[str], bool] = lambda name: True,
) -> list[Offer]:
    """What a request may run on, the first being what it asks for. Raises what api.errors knows."""
    model = body.get("model")
    if model is not None and not isinstance(model, str):
        raise invalid(f"model must be a text, given: {model!r:.100}", "model")
    calibration = services.settings.calibration
    if model != AUTO_MODEL:
        offer = await _offer(body, options, completion, services, model)
        return _with_calibrated_budgets([offer], options, calibration)
    names = auto_models(services.pool, calibration, may_use)
    if not names:
        raise ApiError(
            404,
            "model_not_found",
            f"{AUTO_MODEL} needs a calibration that knows a model served here: name a model, or start the server with "
            "--calibration",
            "model",
        )
    if options.strategy != "auto" or body.get("temperature") == 0:
        raise invalid(
            f"{AUTO_MODEL} chooses the strategy too: leave it at auto, and the temperature above 0",
            "kinetics.strategy" if options.strategy != "auto" else "temperature",
        )
    offers = [await _offer(body, options, completion, services, name) for name in names]
    offers.sort(key=lambda offer: offer.terms.dense_worst_case(offer.terms.max_tokens))
    return _with_calibrated_budgets(offers, options, calibration)


async def _offer(
    body: Json, options: KineticsOptions, completion: type[Completion], services: Services, model: str | None
) -> Offer:
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
    if prompt.greedy and options.strategy not in ("auto", "single"):
        raise invalid(
            f"temperature 0 gives the same sample every time, so {options.strategy} would pay for copies: state a "
            'temperature above 0, or the strategy "single"',
            "temperature",
        )
    if isinstance(options.kv_budget, int) and served.kv.budget is None:
        raise invalid(
            f"the engine that serves {served.name!r} runs without sparse attention, so a KV budget of "
            f'{options.kv_budget} tokens has no effect there: leave kv_budget out or state "dense"',
            "kinetics.kv_budget",
        )
    prompt_tokens = await route.ask(prompt.count_tokens)
    context = served.card.max_model_len or served.price.architecture.max_context
    room = context - prompt_tokens if context is not None else 2**31
    if room < 1:
        raise invalid(
            f"the prompt has {prompt_tokens} tokens, which leaves no room for an answer in the context of {context} "
            f"tokens of {served.name!r}: shorten it",
            "messages" if completion is ChatCompletion else "prompt",
        )
    max_tokens = min(prompt.max_tokens or room, room)
    terms = Terms(served.price, prompt_tokens, max_tokens, options.max_samples)
    return Offer(route, prompt, terms).attending(sparse.requested(options.kv_budget, served.kv))


def _with_calibrated_budgets(
    offers: list[Offer], options: KineticsOptions, calibration: Calibration | None
) -> list[Offer]:
    """Where the KV budget is left open: also every calibrated one that a model's engine can run."""
    if calibration is None or options.kv_budget != "auto" or options.strategy != "auto":
        return offers
    found = {offer.key: offer for offer in offers}
    stages = [stage for point in calibration.served for stage in point.stages]
    for offer in offers:
        engine = offer.route.served.kv
        for stage in stages:
            can_run = stage.kv == DENSE or replace(stage.kv, budget=engine.budget) == engine
            if stage.model == offer.model and can_run and (offer.model, stage.kv) not in found:
                found[offer.model, stage.kv] = offer.attending(stage.kv)
    return list(found.values())


def forcing_of(offer: Offer, force_tokens: int) -> Forcing:
    """What it costs to ask a sample that ran out of tokens for its answer."""
    terms, served = offer.terms, offer.route.served
    context = served.card.max_model_len or terms.price.architecture.max_context or 2**31
    return Forcing(terms.price, terms.kv, terms.prompt_tokens, force_tokens, context)


def with_reserves(offer: Offer, options: KineticsOptions, scorer: Scorer | None) -> Offer:
    """The offer, with what forcing its samples' answers and scoring them may cost. Raises ApiError."""
    forcing = None
    if options.answer.force_tokens:
        for field in ("tools", "response_format"):
            if offer.prompt.body.get(field):
                raise invalid(f"an answer that is forced is text: leave out {field}", "kinetics.answer.force_tokens")
        if not isinstance(offer.prompt.body.get("prompt", ""), str):
            raise invalid("an answer can't be forced after token ids: state text", "kinetics.answer.force_tokens")
        forcing = forcing_of(offer, options.answer.force_tokens).worst_case
    scoring = scoring_of(forcing, scorer.worst_case if scorer is not None else None)
    return replace(offer, terms=replace(offer.terms, scoring=scoring))


def plan_of(
    options: KineticsOptions, offers: list[Offer], calibration: Calibration | None
) -> tuple[Plan, tuple[Offer, ...]]:
    """The plan, and the offer that each of its stages runs on.

    A calibration decides for the strategy `auto` and for a budget by accuracy, where it knows one of the offers. A
    budget in samples or tokens is counted at the dearest of the models. Raises BudgetTooSmall, and AccuracyOutOfReach
    for a budget by accuracy.
    """
    assert options.budget is not None
    greedy = offers[0].prompt.greedy
    by_key = {offer.key: offer for offer in offers}
    terms_of = fitting({key: offer.terms for key, offer in by_key.items()})
    if options.budget.accuracy is None:
        budget = options.budget.budget()
        if calibration is not None and options.strategy == "auto" and not greedy:
            eflops = max(budget.eflops(offer.terms) for offer in offers)
            chosen = choose_for_budget(calibration, eflops, terms_of)
            if chosen is not None:
                return chosen.plan(eflops), tuple(by_key[stage.model, stage.kv] for stage in chosen.point.stages)
        return plan(options.strategy, budget, offers[0].terms, options.stop_confidence, greedy), (offers[0],)
    if calibration is None:
        options.budget.budget()  # raises
    assert calibration is not None
    if options.strategy != "auto" or greedy:
        raise invalid(
            'a budget by accuracy buys what the calibration measured: leave the strategy at "auto" and the '
            "temperature above 0",
            "kinetics.strategy" if options.strategy != "auto" else "temperature",
        )
    cheapest = choose_for_accuracy(calibration, options.budget.accuracy, terms_of)
    return cheapest.plan(cheapest.budget), tuple(by_key[stage.model, stage.kv] for stage in cheapest.point.stages)
