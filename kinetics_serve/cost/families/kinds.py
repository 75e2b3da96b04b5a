"""Of what kind each layer is: a list tells it, or a rule that the family's class has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kinetics_serve.cost.families.attention import CHUNKED, FULL, SLIDING
from kinetics_serve.cost.families.config import Config

LINEAR, MLP, MIXTURE = "linear_attention", "mlp", "moe"

Kinds = Callable[[Config], list[str]]

SYNONYMS = {"attention": FULL, "global": FULL, "mamba": LINEAR, "mamba2": LINEAR, "conv": LINEAR}
NEMOTRON_LETTERS = {"M": LINEAR, "*": FULL, "-": MLP, "E": MIXTURE}


def full(config: Config) -> list[str]:
    """Every layer attends to everything."""
    return typed(lambda config: [FULL] * config.layers)(config)


def typed(otherwise: Kinds, *keys: str) -> Kinds:
    """The list under ``layer_types`` or another key, where there is one."""

    def kinds(config: Config) -> list[str]:
        types = config.listed("layer_types", *keys, length=config.layers)
        if types is None:
            return otherwise(config)
        for kind in types:
            if not isinstance(kind, str):
                raise config.refuse(f"{kind!r} in layer_types")
        config.ignore(
            "sliding_window_pattern", "_sliding_window_pattern", "full_attention_interval", "max_window_layers"
        )
        config.ignore(
            "sliding_window",
            "use_sliding_window",
            "global_attn_every_n_layers",
            "no_rope_layers",
            "no_rope_layer_interval",
        )
        return [SYNONYMS.get(kind, kind) for kind in types]

    return kinds


def every(period: int, *keys: str, other: str = SLIDING, first: bool = False) -> Kinds:
    """Every ``period``-th layer, or as a key says, attends to everything; ``first``: the first of them, not the
    last."""

    def kinds(config: Config) -> list[str]:
        number = config.count(*keys, default=period) if keys else period
        position = 0 if first else number - 1
        if other == SLIDING and config.value("sliding_window") is None:
            return [FULL] * config.layers
        return [FULL if index % number == position else other for index in range(config.layers)]

    return typed(kinds)


def no_rule(config: Config) -> list[str]:
    """For families that always have a list."""
    raise config.refuse("no layer_types")


def all_slide(config: Config) -> list[str]:
    """Every layer has the window, where there is one."""
    return [FULL if config.optional("sliding_window") is None else SLIDING] * config.layers


def last_slide(config: Config) -> list[str]:
    """Layers from ``max_window_layers`` on have the window, if ``use_sliding_window``."""
    slides = config.flag("use_sliding_window") and config.optional("sliding_window") is not None
    config.ignore("sliding_window")
    full_layers = config.whole("max_window_layers", default=0)
    return [SLIDING if slides and index >= full_layers else FULL for index in range(config.layers)]


def exaone(config: Config) -> list[str]:
    """A pattern of letters, or every so-manieth."""
    pattern = config.value("sliding_window_pattern")
    if config.optional("sliding_window") is None:
        return [FULL] * config.layers
    if not isinstance(pattern, str):
        return every(4, "sliding_window_pattern")(config)
    if not pattern or set(pattern) - {"L", "G"}:
        raise config.refuse(f"sliding_window_pattern {pattern!r}, expected letters L and G")
    return [FULL if pattern[index % len(pattern)] == "G" else SLIDING for index in range(config.layers)]


def llama4(config: Config) -> list[str]:
    """Layers with rotary positions attend within chunks."""
    interval = config.count("no_rope_layer_interval", default=4)
    rotary = config.listed("no_rope_layers") or [int((index + 1) % interval != 0) for index in range(config.layers)]
    if len(rotary) != config.layers or any(each not in (0, 1) for each in rotary):
        raise config.refuse(f"no_rope_layers of {len(rotary)}, expected 0 or 1 for each of {config.layers} layers")
    chunked = config.optional("attention_chunk_size") is not None
    return [CHUNKED if each and chunked else FULL for each in rotary]


def flagged(key: str, on: str, off: str) -> Kinds:
    """A list of 0 and 1."""

    def kinds(config: Config) -> list[str]:
        flags = config.listed(key, length=config.layers)
        if flags is None:
            raise config.refuse(f"no {key}")
        if any(flag not in (0, 1) for flag in flags):
            raise config.refuse(f"{key} of other values than 0 and 1")
        return [on if flag else off for flag in flags]

    return kinds


def either(key: str, given: Kinds, otherwise: Kinds) -> Kinds:
    """By the rule of a key where it is given."""
    return lambda config: given(config) if config.value(key) is not None else otherwise(config)


def nemotron(config: Config) -> list[str]:
    """Letters, or a list; every layer is one part only."""
    pattern, types = config.text("hybrid_override_pattern"), config.listed("layers_block_type", "layer_types")
    if pattern is None and types is None:
        raise config.refuse("no hybrid_override_pattern or layers_block_type")
    names: Mapping[Any, str] = (
        NEMOTRON_LETTERS
        if pattern is not None
        else {**SYNONYMS, FULL: FULL, LINEAR: LINEAR, "mlp": MLP, "moe": MIXTURE}
    )
    kinds = list(pattern if pattern is not None else types or ())
    unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in names]
    if unknown or not kinds:
        raise config.refuse(f"{unknown[:1]} in the pattern of layers")
    if config.whole("num_hidden_layers", default=len(kinds)) != len(kinds):
        raise config.refuse(f"a pattern of {len(kinds)} layers for num_hidden_layers {config.layers}")
    return [names[kind] for kind in kinds]


def grouped(config: Config) -> list[str]:
    """The last layer of every ``layer_group_size`` attends to everything, and those that fill no group."""
    size, layers = config.count("layer_group_size", default=1), config.layers
    grouped_layers = layers // size * size
    return [FULL if (index + 1) % size == 0 or index >= grouped_layers else LINEAR for index in range(layers)]


def bamba(config: Config) -> list[str]:
    """The layers that a list numbers attend to everything."""
    numbers = config.listed("attn_layer_indices") or []
    if any(isinstance(each, bool) or not isinstance(each, int) for each in numbers):
        raise config.refuse("attn_layer_indices of other values than layers' numbers")
    return [FULL if index in numbers else LINEAR for index in range(config.layers)]


def kimi(config: Config) -> list[str]:
    """Two lists in ``linear_attn_config`` number the layers, from 1, or every fourth attends to everything."""
    if config.value("linear_attn_config") is None:
        rule = [FULL if index and index % 4 == 0 else LINEAR for index in range(config.layers)]
        return typed(lambda config: rule)(config)
    linear = config.part("linear_attn_config")
    full_layers, others = linear.listed("full_attn_layers") or [], linear.listed("kda_layers") or []
    if sorted([*full_layers, *others], key=str) != sorted(range(1, config.layers + 1), key=str):
        raise config.refuse(f"full_attn_layers and kda_layers that don't number {config.layers} layers")
    return [FULL if index + 1 in full_layers else LINEAR for index in range(config.layers)]
