"""Answers that a client's pattern describes: an expression, or a place in JSON."""

from typing import Any

import re2
from pydantic import BaseModel, ConfigDict, Field

from kinetics_serve.answers.spec import Extractor, PatternError
from kinetics_serve.answers.structured import canonical, fenced, loads

MAX_PATTERN_LENGTH = 1000
SEARCHED_CHARACTERS = 8192
"""How much of a text's end a client's pattern is searched in: looking for its last match can take quadratic time."""

RE2_MEMORY_BYTES = 8 << 20


class Pattern(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str = Field(description="An RE2 expression, or a JSON pointer (RFC 6901).", examples=[r"Answer: (\w+)"])


def regex(options: Pattern) -> Extractor:
    """The last match's first group, or the whole match where the pattern has no group.

    The engine is RE2: time linear in the text, so no look-around and no back-references. Raises PatternError.
    """
    pattern = options.pattern
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH} are allowed")
    settings = re2.Options()
    settings.max_mem = RE2_MEMORY_BYTES
    settings.log_errors = False
    try:
        compiled = re2.compile(pattern, options=settings)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise PatternError(
            f"the pattern {pattern!r} is not RE2 syntax: {reason} (no look-around, no back-references)"
        ) from None

    def extract(text: str) -> str | None:
        matches = list(compiled.finditer(text[-SEARCHED_CHARACTERS:]))
        if not matches:
            return None
        found = matches[-1].group(1 if compiled.groups else 0)
        return (found or "").strip() or None

    return extract


def json_pointer(options: Pattern) -> Extractor:
    """The value at an RFC 6901 pointer in the text's JSON (its last fenced block, or all of it), as canonical JSON.

    Raises PatternError for what is not a pointer.
    """
    pointer = options.pattern
    if pointer and not pointer.startswith("/"):
        raise PatternError(f"the pattern {pointer!r} is not a JSON pointer: it must be empty or start with '/'")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]

    def extract(text: str) -> str | None:
        for candidate in (*fenced(text), text):
            try:
                value = _follow(loads(candidate), parts)
                return value if isinstance(value, str) else canonical(value)
            except (ValueError, KeyError, IndexError, RecursionError):
                continue
        return None

    return extract


def _follow(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, list):
            if not (part.isascii() and part.isdigit()):
                raise KeyError(part)
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value[part]
        else:
            raise KeyError(part)
    return value
