"""Options that several commands take, and what they mean."""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from kinetics_serve.commands.terminal import fail

if TYPE_CHECKING:
    from kinetics_serve.cost.hardware_profile import HardwareProfile
    from kinetics_serve.planner.budget import Budget
    from kinetics_serve.planner.calibration import Calibration
    from kinetics_serve.traces.traces import CountTokens, Traces

TracesFile = Annotated[Path, typer.Argument(help="Traces, as `eval` writes them.", exists=True, dir_okay=False)]
ArchitectureName = Annotated[
    str | None,
    typer.Option("--architecture", help="Folder or Hugging Face name of the model, for traces that don't tell."),
]
TokenizerName = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Folder or Hugging Face name of the tokenizer, for traces without counts."),
]
CalibrationFile = Annotated[Path, typer.Argument(help="What `calibrate` wrote.", exists=True, dir_okay=False)]
CalibrationOption = Annotated[
    Path | None, typer.Option("--calibration", help="What `calibrate` wrote: plans follow it.", exists=True)
]

ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="OPENAI_API_KEY", help="What that server knows you by, where it wants a key."),
]

_BUDGET = re.compile(r"([0-9.eE+]+)\s*(samples?|tokens?|eflops)?")


def checked_url(option: str, stated: str) -> str:
    """A server's URL as `server_url` gives it. Exits where it is none."""
    from kinetics_serve.engine.url import server_url

    try:
        return server_url(stated)
    except ValueError as error:
        raise fail(f"{option}: {error}") from None


def open_traces(path: Path, architecture: str | None, tokenizer: str | None) -> "Traces":
    """Traces whose architecture is known. Exits with what is wrong otherwise."""
    from kinetics_serve.cost import load_architecture
    from kinetics_serve.traces.traces import read

    try:
        traces = read(path, _counter(tokenizer) if tokenizer is not None else None)
        if architecture is not None:
            known = load_architecture(architecture)
            traces = replace(traces, metadata=replace(traces.metadata, architecture=known))
    except (OSError, ValueError) as error:
        raise fail(error) from None
    if traces.metadata.architecture is None:
        raise fail(f"{path} does not say the architecture of {traces.metadata.model}: name it with --architecture")
    return traces


def budget_of(stated: str) -> "Budget":
    """A budget as written on the command line: 4e13, 8samples or 20000tokens."""
    from kinetics_serve.planner.budget import Budget

    parts = _BUDGET.fullmatch(stated.strip())
    try:
        amount = float(parts[1]) if parts else 0.0
    except ValueError:
        amount = 0.0
    if parts is None or not 0 < amount < float("inf"):
        raise fail(f"--budget takes eFLOPs such as 4e13, or 8samples, or 20000tokens; given: {stated!r}")
    if (parts[2] or "").startswith("sample"):
        return Budget("samples", amount)
    return Budget("tokens", amount) if (parts[2] or "").startswith("token") else Budget("eflops", amount)


def load_calibration(path: Path, hardware: "HardwareProfile | None" = None) -> "Calibration":
    """hardware: what requests are priced for, where plans are to be made from it."""
    from kinetics_serve.planner.calibration import Calibration, CalibrationError

    try:
        calibration = Calibration.load(path)
        if hardware is not None:
            calibration.check_hardware(hardware)
        return calibration
    except OSError as error:
        raise fail(f"the calibration {path} can't be read: {error.strerror}") from None
    except CalibrationError as error:
        raise fail(error) from None


def check_file_to_write(path: Path) -> None:
    """Exits where no file can be written there, which is not found out after all the work. Leaves nothing behind."""
    new = not path.exists()
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise not_written(path, error) from None


def check_folder_to_write(path: Path) -> None:
    """Makes the folder. Exits where that, or a file in it, can't be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=path).close()
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> typer.Exit:
    return fail(f"--out {path} can't be written: {error.strerror}")


def _counter(name: str) -> "CountTokens":
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise fail(
            "counting tokens needs the package tokenizers: install kinetics-serve with its extra 'planning'"
        ) from None
    file = Path(name).expanduser() / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the tokenizers package raises bare Exceptions
        raise fail(f"no tokenizer {name!r}: {error}") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
