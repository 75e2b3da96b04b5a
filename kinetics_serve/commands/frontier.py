"""`kinetics-serve frontier`: what a calibration found, drawn."""

from pathlib import Path
from typing import Annotated

import typer

from kinetics_serve.commands.calibrate import print_laws
from kinetics_serve.commands.options import CalibrationFile, check_folder_to_write, load_calibration, not_written
from kinetics_serve.commands.terminal import fail, output
from kinetics_serve.observability.numbers import for_people


def frontier(
    calibration_file: CalibrationFile,
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures and the table.")] = Path("frontier"),
) -> None:
    """Draw accuracy against eFLOPs, and the Pareto frontier, as PNG, SVG and CSV."""
    from kinetics_serve.planner.figures import draw, kv_label, served_frontier

    calibration = load_calibration(calibration_file)
    check_folder_to_write(out)
    try:
        files = draw(calibration, out)
    except OSError as error:
        raise not_written(out, error) from None
    except ImportError as error:
        raise fail(f"figures need matplotlib ({error}): install kinetics-serve with its extra 'planning'") from None
    for cost, accuracy, point in served_frontier(calibration.served):
        output.print(
            f"{cost:.3e} eFLOPs ({for_people(cost)})  {accuracy:.3f}  "
            f"{point.arm.model}, KV {kv_label(point.arm.kv)}, {point.strategy}, "
            f"{point.samples_worth:g} samples' worth of {point.arm.max_tokens} tokens",
            markup=False,
            soft_wrap=True,
        )
    print_laws(calibration)
    for file in files:
        output.print(f"wrote {file}", soft_wrap=True)
