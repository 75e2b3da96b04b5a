"""`kinetics-serve calibrate`, `frontier` and `plan`: from traces to what a budget buys."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinetics_serve.commands.options import ArchitectureName, TokenizerName, budget_of, open_traces
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, errors, fail, output

if TYPE_CHECKING:
    from kinetics_serve.planner.calibration import Calibration, Law

CalibrationFile = Annotated[Path, typer.Argument(help="What `calibrate` wrote.", exists=True, dir_okay=False)]

CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="What `calibrate` wrote: plans follow it.", exists=True)
]


def calibrate(
    traces_files: Annotated[
        list[Path], typer.Argument(help="Traces of one task: a file for each model and KV budget.", exists=True)
    ],
    out: Annotated[Path, typer.Option("--out", help="Where to write the calibration.")] = Path("calibration.json"),
    repeats: Annotated[int, typer.Option(min=1, help="Times that each question is replayed at each point.")] = 10,
    architecture: ArchitectureName = None,
    tokenizer: TokenizerName = None,
    hardware_name: HardwareName = None,
) -> None:
    """Replay traces with every strategy, budget and length, and write what each brought and cost."""
    from rich.progress import Progress

    from kinetics_serve.planner.calibrate import calibrate as run

    recordings = [open_traces(path, architecture, tokenizer) for path in traces_files]
    with Progress(console=errors) as progress:
        bar = progress.add_task("replaying", total=None)
        try:
            found = run(
                recordings,
                chosen_hardware(hardware_name),
                repeats,
                lambda done, of: progress.update(bar, completed=done, total=of),
            )
        except ValueError as error:
            raise fail(error) from None
    found.save(out)
    print_laws(found)
    output.print(f"wrote {out}", soft_wrap=True)


def frontier(
    calibration_file: CalibrationFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures and the table.")] = Path("frontier"),
) -> None:
    """Draw accuracy against eFLOPs, and the Pareto frontier, as PNG, SVG and CSV."""
    from kinetics_serve.planner.figures import draw, kv_label, served_frontier

    calibration = load(calibration_file)
    try:
        files = draw(calibration, out)
    except ImportError as error:
        raise fail(f"figures need matplotlib ({error}): pip install 'kinetics-serve[planning]'") from None
    for cost, accuracy, point in served_frontier(calibration.served):
        output.print(
            f"{cost:.3e} eFLOPs  {accuracy:.3f}  {point.arm.model}, KV {kv_label(point.arm.kv)}, {point.strategy}, "
            f"{point.samples_worth:g} samples' worth of {point.arm.max_tokens} tokens",
            markup=False,
            soft_wrap=True,
        )
    print_laws(calibration)
    for file in files:
        output.print(f"wrote {file}", soft_wrap=True)


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
            calibration = load(calibration_file)
            answer = _calibrated(calibration, budget, accuracy, model, prompt_tokens, max_tokens)
        else:
            if accuracy is not None:
                raise fail("--accuracy needs a --calibration: nothing is known of the task without one")
            answer = _guided(budget, model, prompt_tokens, max_tokens or 4096, hardware_name)
    except (AccuracyOutOfReach, BudgetTooSmall) as error:
        raise fail(error) from None
    output.print_json(json.dumps(answer))


def loaded(path: Path | None) -> "Calibration | None":
    return load(path) if path is not None else None


def load(path: Path) -> "Calibration":
    from kinetics_serve.planner.calibration import Calibration, CalibrationError

    try:
        return Calibration.load(path)
    except (OSError, CalibrationError) as error:
        raise fail(error) from None


def print_laws(calibration: "Calibration") -> None:
    if not calibration.laws:
        output.print("no law: no frontier has three points or more")
    for law in calibration.laws:
        output.print(_law_line(law), markup=False, soft_wrap=True)


def _law_line(law: "Law") -> str:
    kv = "" if law.kv_growth is None else f", the KV budget by {law.kv_growth:.2f}"
    return (
        f"{law.model}, {'sparse' if law.sparse else 'dense'}: for twice the eFLOPs, N × length grows by "
        f"{law.tokens_growth:.2f}{kv} (R² {law.r_squared:.2f}, {law.points} points)"
    )


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
    price = Price(architecture, chosen_hardware(hardware_name).intensity)
    chosen = plan_without(AUTO, budget_of(budget), Arm(model, DENSE, price, prompt_tokens, max_tokens, 32))
    return {
        **GUIDANCE,
        "model": model,
        "kv_budget": "dense",
        "strategy": chosen.policy.name,
        "max_tokens": max_tokens,
        "budget_eflops": chosen.budget,
        "full_length_samples": chosen.full_length_samples,
    }
