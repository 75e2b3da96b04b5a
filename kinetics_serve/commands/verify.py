"""`kinetics-serve plan --verify`: whether a plan holds on a running server."""

import asyncio
from typing import TYPE_CHECKING

import typer

from kinetics_serve.commands.progress import Lines
from kinetics_serve.commands.terminal import errors, fail, output

if TYPE_CHECKING:
    from kinetics_serve.evaluation.tasks import Task
    from kinetics_serve.evaluation.verification import Comparison
    from kinetics_serve.planner.calibration import Calibration, ServedPoint


def verify(
    calibration: "Calibration",
    point: "ServedPoint",
    questions: int,
    task_name: str | None,
    url: str,
    api_key: str | None,
    concurrency: int,
) -> None:
    """Asks so many questions, and prints what was planned and what came. Exits with 1 where they don't agree."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from kinetics_serve.evaluation.verification import Verification, VerificationError, compare

    task = _task(calibration, task_name)
    lines = Lines("asking", errors.print)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        asking = Verification(calibration, point, task, url, api_key)
        with Progress(*columns, console=errors) as progress:
            bar = progress.add_task("asking", total=questions)

            def answered() -> None:
                progress.advance(bar)
                if not errors.is_terminal:
                    lines(int(progress.tasks[0].completed), questions)

            asked = asyncio.run(asking.run(questions, concurrency, answered))
    except VerificationError as error:
        raise fail(error) from None
    except KeyboardInterrupt:
        raise fail("interrupted: nothing was compared") from None
    compared = compare(point, asked)
    _print(compared, f"{task.name}: {questions} questions on {url}, 95 % intervals")
    if not all(each.within for each in compared.values()):
        output.print("The plan does not hold: record new traces with `kinetics-serve eval`, and calibrate on them.")
        raise typer.Exit(1)


def _task(calibration: "Calibration", name: str | None) -> "Task":
    from kinetics_serve.evaluation.tasks import TaskError, load_task

    try:
        return load_task(name or calibration.task)
    except TaskError as error:
        advice = "" if name is not None else ". State the questions that were recorded with --task FILE.jsonl"
        raise fail(f"{error}{advice}") from None


def _print(compared: dict[str, "Comparison"], title: str) -> None:
    from rich.table import Table

    table = Table("", "planned", "measured", "", title=title)
    for name, each in compared.items():
        numbers = [
            f"{interval.mean:{form}} ({interval.low:{form}}–{interval.high:{form}})"
            for interval in (each.planned, each.measured)
            for form in [".3f" if name == "accuracy" else ".3e"]
        ]
        table.add_row(name, *numbers, "within" if each.within else "not within")
    output.print(table)
