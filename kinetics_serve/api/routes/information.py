"""The routes that generate nothing: models, plans, usage, metrics, health."""

from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kinetics_serve.budgeted.arms import auto_models, offers_of, plan_of, with_reserves
from kinetics_serve.budgeted.options import BUDGET_HEADER, options_of
from kinetics_serve.budgeted.scoring import scorer_model, scorer_of
from kinetics_serve.engine.pool import AUTO_MODEL
from kinetics_serve.engine.upstream import EngineUnavailable
from kinetics_serve.planner.choose import fitting
from kinetics_serve.planner.plan import minimum
from kinetics_serve.planner.report import GUIDANCE, choice_report, prospects
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.access import check_model, restricted, tenant_of
from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.services import Services
from kinetics_serve.sources.completion import ChatCompletion, TextCompletion

AUTO_CARD = {"id": AUTO_MODEL, "object": "model", "created": 0, "owned_by": "kinetics-serve"}

router = APIRouter()
open_router = APIRouter()
"""What needs no key: probes and metrics, for who runs the server."""


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The models that the upstreams serve now."""
    pool = _services(request).pool
    if not pool.ready:
        raise EngineUnavailable("no engine is up at the moment")
    tenant = tenant_of(request)
    usable = [model for model in pool.models() if tenant is None or tenant.may_use(model.name)]
    cards = [model.card.raw for model in usable]
    if _auto_models(request):
        cards.append(AUTO_CARD)
    return {"object": "list", "data": cards}


@router.get("/v1/models/{name:path}")
async def model(request: Request, name: Annotated[str, Path(examples=["SmolLM2-135M-Instruct"])]) -> dict[str, Any]:
    """One of them."""
    if name == AUTO_MODEL and _auto_models(request):
        return AUTO_CARD
    check_model(tenant_of(request), name)
    _, served = _services(request).pool.pick(name)
    return served.card.raw


def _auto_models(request: Request) -> list[str]:
    services, tenant = _services(request), tenant_of(request)
    may_use = (lambda model: True) if tenant is None else tenant.may_use
    return auto_models(services.pool, services.settings.calibration, may_use)


@router.post("/v1/kinetics/plan")
async def plan(request: Request) -> dict[str, Any]:
    """What a budget would buy for a prompt. Takes the body of a chat completion or completion; generates nothing.

    Without a budget: what one sample costs, and the least budget.
    """
    services = _services(request)
    _, body = await request_body.read_json(request, services.settings)
    tenant = tenant_of(request)
    if tenant is not None:
        body = restricted(body, tenant, services.pool.pick(None)[1].name)
    if ("messages" in body) == ("prompt" in body):
        raise invalid("state either messages, as for a chat completion, or prompt, as for a completion")
    completion = ChatCompletion if "messages" in body else TextCompletion
    header = request.headers.get(BUDGET_HEADER)
    options = options_of(body, header, services.settings.efforts, budget_needed=False)
    assert options is not None
    judge = scorer_model(options)
    if judge is not None:
        check_model(tenant, judge)
    may_use = (lambda model: True) if tenant is None else tenant.may_use
    offers = await offers_of(body, options, completion, services, may_use)
    scorer = await scorer_of(options, offers[0].prompt, offers[0].route.served, services)
    offers = [with_reserves(offer, options, scorer) for offer in offers]
    terms = offers[0].terms
    answer = {
        "model": offers[0].model,
        "kv_budget": terms.kv.budget or "dense",
        "prompt_tokens": terms.prompt_tokens,
        "max_tokens": terms.max_tokens,
        "max_samples": terms.max_samples,
        "sample_eflops": terms.worst_case(terms.max_tokens),
        "minimum_eflops": minimum(terms),
        "arithmetic_intensity": terms.price.intensity,
    }
    if options.budget is not None:
        calibration = services.settings.calibration
        chosen, _ = plan_of(options, offers, calibration)
        answer |= {
            "strategy": chosen.policy.name,
            "budget_eflops": chosen.budget,
            "full_length_samples": chosen.full_length_samples,
        }
        if calibration is not None and chosen.choice is not None:
            answer |= choice_report(calibration, chosen.choice) | {"budget_eflops": chosen.budget}
            answer |= prospects(calibration, chosen.budget, fitting({offer.key: offer.terms for offer in offers}))
        else:
            answer |= GUIDANCE
    return answer


@router.get("/v1/kinetics/usage")
async def usage(
    request: Request,
    since: Annotated[
        date | None, Query(description="The first day, UTC. Default: the first there is.", examples=["2026-01-01"])
    ] = None,
    until: Annotated[
        date | None, Query(description="The last day, UTC. Default: today.", examples=["2026-01-31"])
    ] = None,
) -> dict[str, Any]:
    """The tenant's own spending by day, model and strategy, its limits, and what counts against them now."""
    ledger, tenant = _services(request).ledger, tenant_of(request)
    if ledger is None or tenant is None:
        raise ApiError(404, "not_found", "this server keeps no ledger: its administrator can start it with --ledger")
    standing = await ledger.standing(tenant)
    rows = await ledger.usage(since, until, tenant)
    return {
        "object": "list",
        "tenant": tenant.name,
        "limits": asdict(tenant.limits),
        "window_spent_eflops": standing.window_spent,
        "month_spent_eflops": standing.month,
        "reserved_eflops": standing.reserved,
        "running_requests": standing.running,
        "data": [{key: value for key, value in asdict(row).items() if key != "tenant"} for row in rows],
    }


@open_router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(_services(request).metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@open_router.get("/health")
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@open_router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """Whether a request would find an engine, and a server that does not stop: 200 or 503."""
    services = _services(request)
    is_ready = services.pool.ready and not services.drain.started
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)
