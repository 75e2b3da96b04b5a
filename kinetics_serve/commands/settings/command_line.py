"""The options of a server as options of a command."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from kinetics_serve.commands.settings.options import ENV_PREFIX, Options, listed, meaning
from kinetics_serve.commands.settings.reference import shown_default
from kinetics_serve.commands.settings.sources import CONFIG_VARIABLE, Settings, SettingsError, option, read
from kinetics_serve.commands.terminal import fail

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"YAML with any of these options; they win over it, and so does the environment: {ENV_PREFIX}PORT for "
        f"--port. Default: what {CONFIG_VARIABLE} names.",
    ),
]


def taking_options(command: Callable[[Settings], None]) -> Callable[..., None]:
    """A command with all options of a server, which is called with what holds. Exits where something is wrong."""

    def with_options(config: Path | None = None, engine_args: list[str] | None = None, **stated: Any) -> None:
        given = {name: "" if value == [""] else value for name, value in stated.items() if value not in (None, [])} | (
            {"engine_args": list(engine_args)} if engine_args else {}
        )
        try:
            settings = read(given, config)
        except SettingsError as error:
            raise fail(error) from None
        command(settings)

    annotations = {name: _annotation(name) for name in Options.model_fields if name != "engine_args"}
    annotations = {
        "engine_args": Annotated[list[str] | None, typer.Argument(help=meaning("engine_args"), show_default=False)],
        "config": Config,
        **annotations,
    }
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = annotations
    return with_options


def _annotation(name: str) -> Any:
    """Text for the parser: what it may be is checked where the other sources are checked too."""
    choices = [choice for choice in get_args(Options.model_fields[name].annotation) if isinstance(choice, str)]
    if Options.model_fields[name].annotation is bool:
        switch = f"{option(name)}/--no-{option(name).removeprefix('--')}"
        return Annotated[bool | None, typer.Option(switch, help=meaning(name), show_default=False)]
    info = typer.Option(
        option(name),
        help=_help(name),
        metavar="|".join(choices) or _metavar(name),
        show_default=False,
        autocompletion=(lambda: choices) if choices else None,
    )
    return Annotated[list[str] | None if listed(name) else str | None, info]


def _metavar(name: str) -> str:
    annotation = Options.model_fields[name].annotation
    return {int: "INTEGER", float: "NUMBER"}.get(annotation, "TEXT") if isinstance(annotation, type) else "TEXT"


def _help(name: str) -> str:
    default = shown_default(name)
    return f"{meaning(name)} (default: {default})" if default else meaning(name)
