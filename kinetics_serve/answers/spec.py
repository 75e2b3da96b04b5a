"""What an extractor is, for those of this package and of others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

Extractor = Callable[[str], str | None]
"""From a sample's text, without its reasoning, to its answer; None where it has none. Pure, and linear in the text."""


class PatternError(ValueError):
    """Options that an extractor can't be made with; the message says why."""


class NoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """An extractor, as an entry point of the group `kinetics_serve.extractors` announces it under its name.

    summary: one line on what it takes for the answer. make: from an instance of `options`; raises PatternError.
    """

    summary: str
    make: Callable[[Any], Extractor]
    options: type[BaseModel] = NoOptions


def plain(summary: str, extract: Extractor) -> ExtractorSpec:
    """The spec of an extractor without options."""
    return ExtractorSpec(summary, lambda options: extract)
