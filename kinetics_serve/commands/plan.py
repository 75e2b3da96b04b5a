"""`kinetics-serve plan`: what a budget buys, or what an accuracy costs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinetics_serve.commands.options import CalibrationOption, budget_of, load_calibration
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, fail, output

if TYPE_CHECKING:
    from kinetics_serve.planner.calibration import Calibration


def plan(
    budget: Annotated[str | None, typer.Option(help="eFLOPs of a request, such as 4e13.")] = None,
    accuracy: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Instead: what to expect at least.")] = None,
    calibration_file: CalibrationOption = None,
    model: Annotated[
        str | None, typer.Option(help="Only this model; without a calibration: whose cost to plan.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of the prompt.")] = 256,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest sample.")] = None,
    hardware_name: HardwareName = None,
) -> None:
    """What a budget buys, or what an accuracy costs, as JSON. Generates nothing."""
    from kinetics_serve.planner.budget import BudgetTooSmall
    from kinetics_serve.planner.choose import AccuracyOutOfReach

    try:
        if calibration_file is not None:
            stated = chosen_hardware(hardware_name) if hardware_name is not None else None
            calibration = load_calibration(calibration_file, stated)
            answer = _calibrated(calibration, budget, accuracy, model, prompt_tokens, max_tokens)
        else:
            if accuracy is not None:
                raise fail("--accuracy needs a --calibration: nothing is known of the task without one")
            answer = _guided(budget, model, prompt_tokens, max_tokens or 4096, hardware_name)
    except (AccuracyOutOfReach, BudgetTooSmall) as error:
        raise fail(error) from None
    output.print_json(json.dumps(answer))


def _calibrated(
    calibration: "Calibration",
    budget: str | None,
    accuracy: float | None,
    model: str | None,
    prompt_tokens: int,
    max_tokens: int | None,
) -> dict[str, Any]:
    from kinetics_serve.planner.choose import at_recorded_lengths, choose_for_accuracy, choose_for_budget
    from kinetics_serve.planner.report import choice_report, prospects

    arm_of = at_recorded_lengths(calibration, prompt_tokens, model, max_tokens)
    if (budget is None) == (accuracy is None):
        raise fail("state --budget or --accuracy, one of them")
    if accuracy is not None:
        choice = choose_for_accuracy(calibration, accuracy, arm_of)
        eflops = choice.budget
    else:
        stated = budget_of(budget or "")
        if stated.unit != "eflops":
            raise fail("with a calibration, state the budget in eFLOPs: models and lengths are yet to be chosen")
        eflops = int(stated.amount)
        found = choose_for_budget(calibration, eflops, arm_of)
        if found is None:
            raise fail(f"{eflops:.4g} eFLOPs buy nothing that was calibrated: the cheapest plan needs more")
        choice = found
    return {**choice_report(calibration, choice), **prospects(calibration, eflops, arm_of)}


def _guided(
    budget: str | None, model: str | None, prompt_tokens: int, max_tokens: int, hardware_name: str | None
) -> dict[str, Any]:
    from kinetics_serve.cost import DENSE, Price, load_architecture
    from kinetics_serve.planner.plan import plan as plan_without
    from kinetics_serve.planner.report import GUIDANCE
    from kinetics_serve.strategies.arm import Arm
    from kinetics_serve.strategies.spec import AUTO

    if budget is None or model is None:
        raise fail("without a --calibration, state --budget and --model")
    try:
        architecture = load_architecture(model)
    except (OSError, ValueError) as error:
        raise fail(error) from None
    price = Price.on(architecture, chosen_hardware(hardware_name))
    arm = Arm(model, DENSE, price, prompt_tokens, max_tokens, 32)
    chosen = plan_without(AUTO, budget_of(budget), arm)
    return {
        **GUIDANCE,
        "model": model,
        "kv_budget": "dense",
        "strategy": chosen.policy.name,
        "max_tokens": max_tokens,
        "budget_eflops": chosen.budget,
        "full_length_samples": chosen.full_length_samples,
    }
