"""`kinetics-serve config`: the settings that a server would have."""

import typer

from kinetics_serve.commands.settings import reference
from kinetics_serve.commands.settings.command_line import taking_options
from kinetics_serve.commands.settings.sources import Settings

config = typer.Typer(help="The settings of `serve`, and where they come from.", no_args_is_help=True)


@config.command()
@taking_options
def show(settings: Settings) -> None:
    """Print what holds and where each value comes from, without secrets; it is a file for --config too."""
    print(reference.shown(settings))


@config.command()
def template() -> None:
    """Print a kinetics.yaml with every option at its default."""
    print(reference.template(), end="")


@config.command(hidden=True)
def table() -> None:
    """Print the table of options for the documents."""
    print(reference.table())
