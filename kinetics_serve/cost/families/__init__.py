"""Reading a model's config.json: which types are known, and what their layers and parameters are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.families.attention import longest_context
from kinetics_serve.cost.families.config import Config, UnsupportedArchitecture, shown
from kinetics_serve.cost.families.quantization import gemm_dtype, kv_cache_bytes
from kinetics_serve.cost.families.table import FAMILIES, FLAT, WRAPPERS

__all__ = ["UnsupportedArchitecture", "read", "text_config"]


def read_config(
    config: Mapping[str, Any], name: str, parameters: int | None = None, kv_bytes: int | None = None
) -> Architecture:
    """The architecture that a Hugging Face ``config.json`` describes.

    ``parameters`` and ``kv_bytes``, where known better, replace what the config says. Raises
    ``UnsupportedArchitecture`` (a ValueError) for a model type that is not known, and for a known one with a key
    that is not or with a value that cannot be.
    """
    text = text_config(config, name)
    total = FAMILIES[text.model_type].total(text)
    max_context = longest_context(text)
    text.check_all_read()
    quantization = config.get("quantization_config") or text.given.get("quantization_config")
    idle = total.parameters - total.active
    whole = total.parameters if parameters is None else parameters
    return Architecture(
        name,
        whole,
        whole - idle,
        total.layers,
        kv_cache_bytes(quantization, text) if kv_bytes is None else kv_bytes,
        max_context,
        total.looked_up,
        gemm_dtype(quantization),
    )


def text_config(config: Mapping[str, Any], name: str) -> Config:
    """The language model's part, with its class's defaults. Raises ``UnsupportedArchitecture`` for an unknown type."""
    model_type = config.get("model_type")
    text = next((config[key] for key in ("text_config", "llm_config") if key in config), None)
    given = dict(config)
    if text is None and isinstance(model_type, str) and model_type in FLAT:
        model_type = WRAPPERS[model_type]
    elif isinstance(model_type, str) and model_type in WRAPPERS:
        if not isinstance(text, Mapping):
            raise UnsupportedArchitecture(name, model_type, f"text_config {shown(text)}, expected an object")
        given = dict(text)
        tied = config.get("tie_word_embeddings")
        if tied is not None:
            given["tie_word_embeddings"] = tied
        model_type = given.get("model_type", WRAPPERS[model_type])
    elif isinstance(text, Mapping):
        raise UnsupportedArchitecture(name, model_type, "an unknown type of model with a language model inside")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedArchitecture(name, model_type, "an unknown type of model; docs/cost.md lists the known ones")
    return Config(given, class_defaults().get(model_type, {}), name, model_type)


@cache
def class_defaults() -> Mapping[str, Mapping[str, Any]]:
    """What transformers' class of each type takes for the keys that we read, where a config is silent."""
    text = files("kinetics_serve.cost.families").joinpath("defaults.json").read_text(encoding="utf-8")
    defaults: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return defaults
