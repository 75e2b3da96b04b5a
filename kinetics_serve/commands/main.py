"""The command `kinetics-serve`."""

from importlib.metadata import version
from typing import Annotated

import typer

from kinetics_serve.commands.calibrate import calibrate
from kinetics_serve.commands.capacity import show_capacity
from kinetics_serve.commands.config import config
from kinetics_serve.commands.cost import cost
from kinetics_serve.commands.demo import calibrate_demo, demo
from kinetics_serve.commands.engine import engine
from kinetics_serve.commands.evaluate import evaluate
from kinetics_serve.commands.frontier import frontier
from kinetics_serve.commands.hardware import show_hardware
from kinetics_serve.commands.keys import keys
from kinetics_serve.commands.ledger_check import ledger_group
from kinetics_serve.commands.plan import plan
from kinetics_serve.commands.replay import replay
from kinetics_serve.commands.serve import serve
from kinetics_serve.commands.tenants import tenants
from kinetics_serve.commands.usage import usage

app = typer.Typer(
    help="Test-time scaling under a compute budget, in front of stock vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kinetics-serve {version('kinetics-serve')}")
        raise typer.Exit


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Test-time scaling under a compute budget, in front of stock vLLM."""


for command in (serve, engine, cost, demo, replay, calibrate, frontier, plan, usage):
    app.command()(command)
app.command(name="capacity")(show_capacity)
app.command(name="hardware")(show_hardware)
app.command(name="calibrate-demo")(calibrate_demo)
app.command(name="eval")(evaluate)
for group, name in ((config, "config"), (tenants, "tenants"), (keys, "keys"), (ledger_group, "ledger")):
    app.add_typer(group, name=name)
