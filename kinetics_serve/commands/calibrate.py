"""`kinetics-serve calibrate`: traces replayed with every strategy, budget and length."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetics_serve.commands.options import (
    ArchitectureName,
    TokenizerName,
    check_file_to_write,
    not_written,
    open_traces,
)
from kinetics_serve.commands.progress import Lines
from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, errors, fail, output

if TYPE_CHECKING:
    from kinetics_serve.planner.calibration import Calibration, Law


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
    from kinetics_serve.registry import BrokenPart

    check_file_to_write(out)
    recordings = [open_traces(path, architecture, tokenizer) for path in traces_files]
    lines = Lines("replaying", errors.print)
    with Progress(console=errors) as progress:
        bar = progress.add_task("replaying", total=None)

        def told(done: int, of: int) -> None:
            progress.update(bar, completed=done, total=of)
            if not errors.is_terminal:
                lines(done, of)

        try:
            found = run(
                recordings,
                chosen_hardware(hardware_name),
                repeats,
                told,
            )
        except (BrokenPart, ValueError) as error:
            raise fail(error) from None
    try:
        found.save(out)
    except OSError as error:
        raise not_written(out, error) from None
    print_laws(found)
    if any(len(traces.questions) > found.questions for traces in recordings):
        output.print(f"only the {found.questions} questions that all of these traces have were replayed")
    output.print(f"wrote {out}", soft_wrap=True)


def print_laws(calibration: "Calibration") -> None:
    if not calibration.laws:
        output.print("no law: no frontier has three points or more over a doubling of the cost")
    for law in calibration.laws:
        output.print(_law_line(law), markup=False, soft_wrap=True)


def _law_line(law: "Law") -> str:
    kv = "" if law.kv_growth is None else f", the KV budget by {law.kv_growth:.2f}"
    return (
        f"{law.model}, {'sparse' if law.sparse else 'dense'}: for twice the eFLOPs, N × length grows by "
        f"{law.tokens_growth:.2f}{kv} (R² {law.r_squared:.2f}, {law.points} points)"
    )
