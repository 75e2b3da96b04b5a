"""The options on paper: what holds, as `kinetics.yaml`; an empty file to fill in; the documents' table."""

from pathlib import Path

import yaml
from pydantic import SecretStr

from kinetics_serve.commands.settings.options import ENV_PREFIX, Options, meaning, secret
from kinetics_serve.commands.settings.sources import FILE_SUFFIX, Settings, option

COMMENT_COLUMN = 40


def shown(settings: Settings) -> str:
    """What holds and where it comes from, as a file that `--config` takes; secrets are left out."""
    lines = []
    for name in Options.model_fields:
        value = getattr(settings.options, name)
        hidden = isinstance(value, SecretStr)
        text = f"# {name}: (secret)" if hidden else f"{name}: {_yaml(value)}"
        lines.append(f"{text:<{COMMENT_COLUMN}}  # {settings.origins.get(name, 'default')}")
    return "\n".join(lines)


def template() -> str:
    """A `kinetics.yaml` with every option at its default, each in a comment."""
    entries = [f"# {meaning(name)}\n# {name}: {_yaml(Options.model_fields[name].default)}\n" for name in _of_files()]
    return "\n".join(["# kinetics-serve serve --config kinetics.yaml\n", *entries])


def table() -> str:
    """Every option in Markdown."""
    rows = [
        "| option | variable | default | |",
        "|---|---|---|---|",
        *(
            f"| `{'--' if name == 'engine_args' else option(name)}` | `{ENV_PREFIX}{name.upper()}`"
            f"{f', `…{FILE_SUFFIX.upper()}`' if secret(name) else ''} | {shown_default(name)} | {meaning(name)} |"
            for name in Options.model_fields
        ),
    ]
    return "\n".join(rows)


def shown_default(name: str) -> str:
    """Nothing where an option is not set by default."""
    default = Options.model_fields[name].default
    if isinstance(default, dict):
        return ", ".join(f"{key}={value:g}" for key, value in default.items())
    return "" if default in (None, []) or default is False else str(default)


def _of_files() -> list[str]:
    return [name for name in Options.model_fields if not secret(name)]


def _yaml(value: object) -> str:
    """On one line."""
    plain = str(value) if isinstance(value, Path) else value
    return str(yaml.safe_dump(plain, default_flow_style=True, width=10**6, sort_keys=False)).split("\n")[0]
