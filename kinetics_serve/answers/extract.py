"""The answer in a sample's text: a family of extractors, each a pure function from text to answer or None."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kinetics_serve.answers import boxes, choices, marks, numerals, patterns, spec
from kinetics_serve.answers.equivalence import MAX_MATH_LENGTH
from kinetics_serve.answers.expressions import SEARCHED_CHARACTERS, last_expression
from kinetics_serve.answers.spec import Extractor, ExtractorSpec, PatternError
from kinetics_serve.answers.structured import answer_in_json, json_text
from kinetics_serve.answers.thinking import after_thinking, turns
from kinetics_serve.registry import Registry

EXTRACTORS = Registry("kinetics_serve.extractors", "extractor", ExtractorSpec)

_NOTHING_ELSE = re.compile(r"(?!.*\d\s+\d)[-+(\[]*\d[\d.,;/^*+()\[\] -]*")
_VERDICT = re.compile(r"(?i)[\s*]*+(yes|no|true|false)(?:\*\*)?(?:[,;:]|\.(?! ?\d)|\s*\n)")
_FIRST_LINE = re.compile(r"\s*+(\*{0,2}+)[ \t]*+(?=[-−$€£\d])([-−]?[$€£]?\d[\d.,/:%]{0,30}+)[.!]?\1[.!]?[ \t]*\n\s*\n")
"""What a text may begin with as its answer, before it explains it."""

MAX_CHARACTERS = 131_072
"""How much of a text's end an extractor sees: more is no answer, and the server reads it while others wait."""


class Ignored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ignored: frozenset[str] = Field(default=frozenset(), description="Fields that make no other answer.")


def number(text: str) -> str | None:
    """The last number, as written but for thousands separators and currency."""
    found = numerals.last_number(numerals.with_ascii_digits(text[-SEARCHED_CHARACTERS:]))
    return found[0] if found is not None else None


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def auto(text: str) -> str | None:
    """What is boxed or marked as the final answer, whichever is last; else JSON; else what is marked; else the verdict
    or number that the text begins with; else the last formula or expression; else the last line. Before the model goes
    on with a question of its own, if it answered by then.
    """
    text = numerals.with_ascii_digits(text)
    before, after = turns(text)
    stated = _stated(before) or (_stated(text) if after else None)
    return stated or _whole(before) or _first(before) or last_expression(before) or last_line(before)


def _stated(text: str) -> str | None:
    box, final = boxes.last_boxes(text), marks.last_mark(text, only_final=True)
    if box is not None and final is not None:
        return final[0] if final[1] > box[1] else box[0]
    found = box or final
    return found[0] if found is not None else answer_in_json(text) or marks.marked(text)


def _first(text: str) -> str | None:
    """The verdict that a text begins with, or the number on its first line."""
    found = _VERDICT.match(text)
    if found is not None:
        return found[1]
    found = _FIRST_LINE.match(text)
    return found[2].rstrip(".,:") if found is not None else None


def _whole(text: str) -> str | None:
    """The text itself, where it is nothing but an expression."""
    text = text.strip()
    return text if 0 < len(text) <= MAX_MATH_LENGTH and "$" not in text and _NOTHING_ELSE.fullmatch(text) else None


AUTO = spec.plain("boxed, else marked in words, else the last formula or number, else the last line", auto)
BOXED = spec.plain("the last box, or the last ones that are one answer", boxes.boxed)
NUMBER = spec.plain("the last number", number)
CHOICE = spec.plain("the choice letter that the text settles for", choices.choice)
LAST_LINE = spec.plain("the last line", last_line)
REGEX = ExtractorSpec("the last match of a pattern", patterns.regex, patterns.Pattern)
JSON_POINTER = ExtractorSpec("the value at a place in JSON", patterns.json_pointer, patterns.Pattern)
JSON = ExtractorSpec("all of the JSON", lambda options: json_text(options.ignored), Ignored)


def extractor(name: str, pattern: str | None = None, ignored: frozenset[str] = frozenset()) -> Extractor:
    """The extractor of that name; `regex` and `json_pointer` need a pattern, others take none.

    ignored: fields that `json` leaves out. Raises PatternError, registry.UnknownPart, registry.BrokenPart.
    """
    options: dict[str, Any] = {"pattern": pattern} if pattern is not None else {}
    if ignored and "ignored" in EXTRACTORS.get(name).options.model_fields:
        options["ignored"] = ignored
    return extractor_with(name, options)


def extractor_with(name: str, options: dict[str, Any]) -> Extractor:
    """The extractor of that name with its options. What it sees of a text is what follows the reasoning."""
    found = EXTRACTORS.get(name)
    fields = found.options.model_fields
    if "pattern" in options and "pattern" not in fields:
        raise PatternError(f"the extractor {name!r} takes no pattern; only regex and json_pointer do")
    if "pattern" in fields and fields["pattern"].is_required() and "pattern" not in options:
        raise PatternError(f"the extractor {name!r} needs a pattern")
    try:
        extract = found.make(found.options.model_validate(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PatternError(f"the extractor {name!r} can't be made: {place}: {first['msg']}") from None

    def extract_text(text: str) -> str | None:
        answer = extract(after_thinking(text)[-MAX_CHARACTERS:])
        # JSON may escape half a surrogate pair, which no response can carry.
        return answer.encode(errors="replace").decode() if answer is not None else None

    return extract_text
