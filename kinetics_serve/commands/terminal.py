"""What the commands share: consoles, failing, the hardware option."""

from typing import Annotated

import typer
from rich.console import Console

from kinetics_serve.cost import hardware

errors = Console(stderr=True, highlight=False)
output = Console(highlight=False)

HardwareName = Annotated[
    str | None,
    typer.Option(
        "--hardware",
        help=f"What eFLOPs are counted for: {', '.join(hardware.GPUS)}, cpu, or a .yaml file with flops and "
        "bytes_per_second. Default: what is here.",
    ),
]

DollarsPerHour = Annotated[
    float | None,
    typer.Option(
        "--price-per-gpu-hour", min=0, max=1e6, help="Dollars that an hour of one device costs: shows money too."
    ),
]


def fail(message: object) -> typer.Exit:
    errors.print(f"error: {message}", soft_wrap=True, markup=False)
    return typer.Exit(1)


def chosen_hardware(name: str | None) -> hardware.HardwareProfile:
    try:
        return hardware.profile(name) if name is not None else hardware.detect()
    except ValueError as error:
        raise fail(error) from None
