"""`kinetics-serve plan`: what a budget buys, or what an accuracy costs."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinetics_serve.commands.options import ApiKey, CalibrationOption, budget_of, checked_url, load_calibration
from kinetics_serve.commands.terminal import DollarsPerHour, HardwareName, chosen_hardware, fail, output

if TYPE_CHECKING:
    from kinetics_serve.planner.calibration import Calibration
    from kinetics_serve.planner.choose import ArmOf, Choice
    from kinetics_serve.strategies.arm import Arm


LONGEST_SAMPLE = 4096
"""Where nobody says, and the model's context has room for it."""


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
    dollars_per_hour: DollarsPerHour = None,
    verify: Annotated[
        int | None,
        typer.Option(min=10, help="Ask so many of the task's questions, and say whether the plan holds. With --url."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="URL of a running kinetics-serve, to verify the plan on.")] = None,
    api_key: ApiKey = None,
    task: Annotated[
        str | None, typer.Option(help="Where the calibration's questions are, if not by its name: FILE.jsonl.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions in flight while verifying.")] = 8,
) -> None:
    """What a budget buys, or what an accuracy costs, as JSON. Generates nothing, unless it is to be verified."""
    from kinetics_serve.budgeted.money import in_dollars
    from kinetics_serve.cost import Price
    from kinetics_serve.planner.budget import BudgetTooSmall
    from kinetics_serve.planner.choose import AccuracyOutOfReach, at_recorded_lengths
    from kinetics_serve.planner.report import choice_report, prospects

    if verify is not None and (url is None or calibration_file is None):
        raise fail("--verify asks a running server whether a calibration's plan holds: state --url and --calibration")
    url = checked_url("--url", url) if url is not None else None
    try:
        if calibration_file is not None:
            stated = chosen_hardware(hardware_name) if hardware_name is not None else None
            calibration = load_calibration(calibration_file, stated)
            arm_of = at_recorded_lengths(calibration, prompt_tokens, model, max_tokens)
            choice, eflops = _chosen(calibration, budget, accuracy, arm_of)
            answer = {**choice_report(calibration, choice), **prospects(calibration, eflops, arm_of)}
            hardware = replace(calibration.hardware, dollars_per_hour=dollars_per_hour)
            answer |= in_dollars(answer, Price.on(calibration.architectures[choice.point.arm.model], hardware))
        else:
            if accuracy is not None:
                raise fail("--accuracy needs a --calibration: nothing is known of the task without one")
            answer = _guided(budget, model, prompt_tokens, max_tokens, hardware_name, dollars_per_hour)
    except (AccuracyOutOfReach, BudgetTooSmall) as error:
        raise fail(error) from None
    output.print_json(json.dumps(answer))
    if verify is not None and url is not None:
        from kinetics_serve.commands.verify import verify as put_to_the_test

        put_to_the_test(calibration, choice.point, verify, task, url, api_key, concurrency)


def _chosen(
    calibration: "Calibration", budget: str | None, accuracy: float | None, arm_of: "ArmOf[Arm]"
) -> "tuple[Choice[Arm], int]":
    """The plan, and the budget that it is for."""
    from kinetics_serve.planner.choose import choose_for_accuracy, choose_for_budget, least_budget

    if (budget is None) == (accuracy is None):
        raise fail("state --budget or --accuracy, one of them")
    if accuracy is not None:
        choice = choose_for_accuracy(calibration, accuracy, arm_of)
        return choice, choice.budget
    stated = budget_of(budget or "")
    if stated.unit != "eflops":
        raise fail("with a calibration, state the budget in eFLOPs: models and lengths are yet to be chosen")
    eflops = int(stated.amount)
    found = choose_for_budget(calibration, eflops, arm_of)
    if found is None:
        least = least_budget(calibration, arm_of)
        if least is None:
            raise fail(
                f"nothing that was calibrated fits this model, prompt and longest sample: the calibration is of "
                f"{', '.join(calibration.architectures)}, with samples of "
                f"{min(point.arm.max_tokens for point in calibration.served)} tokens or more"
            )
        raise fail(f"{eflops:.4g} eFLOPs buy nothing that was calibrated: state at least {least}")
    return found, eflops


def _guided(
    budget: str | None,
    model: str | None,
    prompt_tokens: int,
    max_tokens: int | None,
    hardware_name: str | None,
    dollars_per_hour: float | None,
) -> dict[str, Any]:
    from kinetics_serve.budgeted.money import in_dollars
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
    room = max(LONGEST_SAMPLE, max_tokens or 1)
    if architecture.max_context is not None:
        room = architecture.max_context - prompt_tokens
    if room < (max_tokens or 1):
        raise fail(
            f"{model} has a context of {architecture.max_context} tokens: too little for a prompt of {prompt_tokens} "
            f"and samples of {max_tokens or 1}"
        )
    max_tokens = max_tokens or min(LONGEST_SAMPLE, room)
    price = Price.on(architecture, replace(chosen_hardware(hardware_name), dollars_per_hour=dollars_per_hour))
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
        **in_dollars({"budget_eflops": chosen.budget}, price),
    }
