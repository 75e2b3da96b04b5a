"""`kinetics-serve hardware`: what eFLOPs are counted for."""

from typing import Annotated

import typer

from kinetics_serve.commands.terminal import chosen_hardware, output
from kinetics_serve.cost import hardware
from kinetics_serve.observability.numbers import for_people


def show_hardware(
    measure: Annotated[bool, typer.Option(help="Measure the CPU again and keep that; on an idle machine.")] = False,
) -> None:
    """Show the hardware that eFLOPs are counted for."""
    profile = hardware.remeasured_cpu() if measure else chosen_hardware(None)
    output.print(f"{profile.name}: {profile.intensity:.1f} FLOPs per byte")
    output.print(f"  {for_people(profile.flops)}FLOP/s, {for_people(profile.bytes_per_second)}B/s")
    output.print(f"  {profile.source}", soft_wrap=True)
