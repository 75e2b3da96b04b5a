"""What a package announces of a scorer, what its scorers are made from, and the scorers that are announced."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
from pydantic import BaseModel, ConfigDict

from kinetics_serve.cost import Price
from kinetics_serve.engine.upstream import Json, Upstream
from kinetics_serve.registry import Registry
from kinetics_serve.scorers.scorer import Scorer

CONFIDENCE = "confidence"
"""The model's own confidence, which samples bring along: the scorer unless another is stated."""


class ScorerOptions(BaseModel):
    """What a client may set of a scorer. A subclass names it in `kind`, a literal; its other fields are its options."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: str


class ScorerEngine(NamedTuple):
    """A model that an upstream serves, for a scorer that asks one."""

    upstream: Upstream
    model: str
    price: Price
    context: int
    """The most tokens that it takes, prompt and generated together."""


@dataclass(frozen=True, slots=True)
class ScorerContext:
    """What the samples of one request are scored with."""

    messages: list[Json]
    """The conversation up to the sample."""
    model: str
    """The one that generates the samples."""
    fields: Json
    """What every request to an engine carries along, such as a cache_salt."""
    engine: Callable[[str], ScorerEngine]
    """The engine that serves a model. Raises what is told to the client."""
    client: aiohttp.ClientSession
    allowed_hosts: frozenset[str]
    """`host:port` of the programs that the administrator lets requests name."""


@dataclass(frozen=True, slots=True)
class ScorerSpec:
    """A scorer: its name, what can be set, and how it is made."""

    name: str
    options: type[ScorerOptions]
    make: Callable[[Any, ScorerContext], Awaitable[Scorer | None]]
    """Of options, which are an instance of `options`. None: samples bring their scores along."""


SCORERS: Registry[ScorerSpec] = Registry("kinetics_serve.scorers", "scorer", ScorerSpec)
