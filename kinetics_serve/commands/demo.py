"""`kinetics-serve demo` and `calibrate-demo`: the bundled model at work."""

from pathlib import Path
from typing import Annotated

import typer

from kinetics_serve.commands.options import check_folder_to_write
from kinetics_serve.commands.terminal import DollarsPerHour


def demo(dollars_per_hour: DollarsPerHour = None) -> None:
    """Ask the bundled model questions at several budgets, and show what each bought."""
    from kinetics_serve.commands.demos.budgets import main

    raise typer.Exit(main(dollars_per_hour))


def calibrate_demo(
    out: Annotated[Path, typer.Option(help="Folder for traces, calibration and figures.")] = Path("calibrate-demo"),
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of each task.")] = None,
) -> None:
    """Take the bundled model through eval, calibrate, frontier and plan on times tables, in some minutes."""
    from kinetics_serve.commands.demos.calibration import main

    check_folder_to_write(out)
    raise typer.Exit(main(out, limit))
