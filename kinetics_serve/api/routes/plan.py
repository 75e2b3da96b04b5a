"""What a budget would buy."""

from typing import Any

from fastapi import APIRouter

from kinetics_serve.api.dependencies import JsonCall
from kinetics_serve.budgeted.money import in_dollars
from kinetics_serve.budgeted.notes import notes_of
from kinetics_serve.budgeted.options import options_of
from kinetics_serve.budgeted.prepare import prepare
from kinetics_serve.observability.numbers import dollars_for_people, for_people
from kinetics_serve.planner.budget import minimum
from kinetics_serve.planner.report import GUIDANCE, choice_report, prospects
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
    options = options_of(body, call.request.headers, services.settings.efforts, budget_needed=False)
    assert options is not None
    prepared = await prepare(body, options, completion, call.tenant, services)
    arm = prepared.arms[0]
    answer: dict[str, Any] = {
        "model": arm.model,
        "kv_budget": arm.kv.budget or "dense",
        "prompt_tokens": arm.prompt_tokens,
        "max_tokens": arm.max_tokens,
        "max_samples": arm.max_samples,
        "sample_eflops": arm.full_length,
        "minimum_eflops": minimum(arm),
        "arithmetic_intensity": arm.price.intensity,
    }
    if options.budget is None:
        return answer | in_dollars(answer, arm.price)
    chosen = prepared.plan()
    answer |= {
        "strategy": chosen.policy.name,
        "budget_eflops": chosen.budget,
        "full_length_samples": chosen.full_length_samples,
        "notes": notes_of(chosen),
    }
    rounded = {name: for_people(value) for name, value in answer.items() if name.endswith("_eflops")}
    money = in_dollars(answer, arm.price)
    answer["rounded"] = rounded | {name: dollars_for_people(amount) for name, amount in money.items()}
    answer |= money
    calibration = services.settings.calibration
    if calibration is None or chosen.choice is None:
        return answer | GUIDANCE
    answer |= choice_report(calibration, chosen.choice) | {"budget_eflops": chosen.budget}
    answer |= in_dollars({"expected_eflops": answer["expected_eflops"]}, arm.price)
    return answer | prospects(calibration, chosen.budget, prepared.arm_of)
