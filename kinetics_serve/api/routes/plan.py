"""What a budget would buy."""

from typing import Any

from fastapi import APIRouter

from kinetics_serve.api.dependencies import JsonCall
from kinetics_serve.budgeted.arms import offers_of, plan_of, with_reserves
from kinetics_serve.budgeted.options import BUDGET_HEADER, options_of
from kinetics_serve.budgeted.scoring import scorer_model, scorer_of
from kinetics_serve.planner.choose import fitting
from kinetics_serve.planner.plan import minimum
from kinetics_serve.planner.report import GUIDANCE, choice_report, prospects
from kinetics_serve.requests.access import check_model
from kinetics_serve.requests.errors import invalid
from kinetics_serve.sources.completion import ChatCompletion, TextCompletion

router = APIRouter()


@router.post("/v1/kinetics/plan")
async def plan(call: JsonCall) -> dict[str, Any]:
    """What a budget would buy for a prompt. Takes the body of a chat completion or completion; generates nothing.

    Without a budget: what one sample costs, and the least budget.
    """
    services, body = call.services, call.body
    if ("messages" in body) == ("prompt" in body):
        raise invalid("state either messages, as for a chat completion, or prompt, as for a completion")
    completion = ChatCompletion if "messages" in body else TextCompletion
    header = call.request.headers.get(BUDGET_HEADER)
    options = options_of(body, header, services.settings.efforts, budget_needed=False)
    assert options is not None
    judge = scorer_model(options)
    if judge is not None:
        check_model(call.tenant, judge)
    offers = await offers_of(body, options, completion, services, call.may_use)
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
