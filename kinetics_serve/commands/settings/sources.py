"""Reading the options, each from the first of: the command line, the environment, `.env`, a file; or its default."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource, YamlConfigSettingsSource

from kinetics_serve.commands.settings.options import ENV_PREFIX, KEYS, Options, secret

DOTENV = Path(".env")
FILE_SUFFIX = "_file"
CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"

_OF_KUBERNETES = re.compile(r"_service_(host|port)(_|$)|_port(_\d+_(tcp|udp)(_|$)|$)", re.IGNORECASE)
"""Variables that Kubernetes sets for a service whose name begins with kinetics, and Docker's links before it."""


Values = dict[str, tuple[Any, str]]
"""By option: its value and where that comes from."""


class SettingsError(ValueError):
    """What is wrong with the settings, a line for each mistake: where it stands, what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that hold. origins: where each of those came from that is not its default."""

    options: Options
    origins: Mapping[str, str]


def read(stated: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The options: `stated` on the command line, those of the process's environment and of the folder's `.env`, those
    of the file `config`, which a variable may name too. Raises SettingsError.
    """
    merged = _elsewhere(config) | {name: (value, "command line") for name, value in stated.items()}
    origins = {name: origin for name, (_, origin) in merged.items()}
    try:
        # An empty text takes back what a weaker source states. An empty key does not: it is more likely a mistake.
        options = Options(**{name: value for name, (value, _) in merged.items() if value != "" or name in KEYS})
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(each, origins) for each in error.errors())) from None
    return Settings(options, origins)


def nearest(given: str, known: Collection[str]) -> str:
    """What somebody most likely meant, as the end of a sentence; nothing where nothing is near."""
    found = get_close_matches(given, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def stated_elsewhere(name: str) -> str | None:
    """What the environment, `.env` or the file says of one option, for commands that take no others. Raises
    SettingsError.
    """
    value, _ = _elsewhere().get(name, (None, ""))
    return str(value) if value not in (None, "") else None


def option(name: str) -> str:
    """As the command line has it."""
    return "--" + name.replace("_", "-")


def _sources() -> list[tuple[str, EnvSettingsSource]]:
    """The later wins."""
    dotenv = [(str(DOTENV), DotEnvSettingsSource(Options, env_file=DOTENV))] if DOTENV.is_file() else []
    return [*dotenv, ("environment", EnvSettingsSource(Options))]


def _elsewhere(config: Path | None = None) -> Values:
    """All but the command line."""
    file = config or _config_file()
    return (_file(file) if file is not None else {}) | _environment()


def _environment() -> Values:
    found: Values = {}
    for origin, source in _sources():
        found |= _variables(source, origin)
    return found


def _config_file() -> Path | None:
    named = [source.env_vars.get(CONFIG_VARIABLE.lower()) for _, source in _sources()]
    return next((Path(name) for name in reversed(named) if name), None)


def _variables(source: EnvSettingsSource, origin: str) -> Values:
    """Options of variables, secrets from the files that variables name."""
    prefix, variables = ENV_PREFIX.lower(), source.env_vars
    found: Values = {}
    for name, value in source().items():
        label = f"{ENV_PREFIX}{name.upper()}"
        if value == "" and secret(name):
            raise SettingsError(f"{label} ({origin}) is empty: state it, or unset the variable")
        if value != "" and not str(value).startswith("tcp://"):  # a port of Kubernetes'
            found[name] = (value, f"{origin} ({label})")
    from_files = {f"{name}{FILE_SUFFIX}": name for name in Options.model_fields if secret(name)}
    known = {*Options.model_fields, *from_files, CONFIG_VARIABLE.lower().removeprefix(prefix)}
    for variable in variables:
        name = variable.removeprefix(prefix)
        if variable.startswith(prefix) and name not in known and not _OF_KUBERNETES.search(variable):
            nearby = nearest(variable.upper(), [f"{ENV_PREFIX}{each.upper()}" for each in known])
            raise SettingsError(f"{variable.upper()} ({origin}) is no option{nearby}")
    for variable, name in from_files.items():
        if path := variables.get(prefix + variable):
            label = f"{ENV_PREFIX}{variable.upper()}"
            if name in found:
                raise SettingsError(f"{label} and {ENV_PREFIX}{name.upper()} are both set ({origin}): keep one of them")
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"{label} ({origin}): can't read {path}: {error}") from None
            if not text:
                raise SettingsError(f"{label} ({origin}): {path} is empty")
            found[name] = (text, f"{origin} ({label})")
    return found


def _file(path: Path) -> Values:
    if not path.is_file():
        raise SettingsError(f"--config: there is no file {path}")
    try:
        stated = YamlConfigSettingsSource(Options, path)()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from None
    except (AttributeError, TypeError, ValueError):  # a list, or a text
        raise SettingsError(f"{path} must hold lines such as `port: 8000`") from None
    for name in stated:
        if name not in Options.model_fields:
            raise SettingsError(f"{path}: there is no option {name!r}{nearest(str(name), Options.model_fields)}")
    return {name: (value, str(path)) for name, value in stated.items() if value is not None}


def _sentence(error: ErrorDetails, origins: Mapping[str, str]) -> str:
    reason = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return reason
    name = str(error["loc"][0])
    given = "" if secret(name) or "given: " in reason else f"; given: {error['input']!r}"
    if error["type"] == "literal_error":
        choices = get_args(Options.model_fields[name].annotation)
        reason = f"expected one of {', '.join(choices)}"
        given += nearest(str(error["input"]), choices)
    return f"{option(name)} ({origins.get(name, 'default')}): {reason[:1].lower()}{reason[1:]}{given}"
