"""What transformers' configuration classes fill in, for the keys that the cost model reads.

python -m tests.cost.class_defaults writes it to kinetics_serve/cost/families/defaults.json.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from kinetics_serve.cost import families
from kinetics_serve.cost.families.config import Config, UnsupportedArchitecture
from kinetics_serve.cost.families.table import FAMILIES

FILE = Path(families.__file__).with_name("defaults.json")


def class_defaults() -> dict[str, dict[str, Any]]:
    """By model type. Lists are left out: they are rules for a number of layers, and ours to know."""
    from transformers import CONFIG_MAPPING

    kinds = {name: CONFIG_MAPPING[name] for name in sorted(FAMILIES) if name in CONFIG_MAPPING}
    known = {"max_position_embeddings"}
    for name, kind in kinds.items():
        read = Config(kind().to_dict(), {}, name, name)
        with suppress(UnsupportedArchitecture):  # a few classes' defaults are no model
            FAMILIES[name].total(read)
        known |= read.known
    return {name: _declared(kind, known) for name, kind in kinds.items()}


def _declared(kind: type[Any], known: set[str]) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(kind) if field.name in known}
    return {key: value for key, value in sorted(defaults.items()) if isinstance(value, bool | int | float | str)}


if __name__ == "__main__":
    FILE.write_text(json.dumps(class_defaults(), indent=1) + "\n", encoding="utf-8")
