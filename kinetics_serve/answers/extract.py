"""The answer in a sample's text: a family of extractors, each a pure function from text to answer or None."""

import json
from collections.abc import Callable
from typing import Any

import re2

from kinetics_serve.answers.structured import json_text

_NUMBER = r"[-+−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?%?"
NUMBER = re2.compile(_NUMBER)
LEADING_NUMBER = re2.compile(rf"({_NUMBER})(?:$|[.,;:!?)\]*]|\s+[A-Za-z(])")
ANSWER_MARK = re2.compile(r"(?i)(?:answer(?:\s+is)?\s*[:=]|answer\s+is)\s*(.+)|####\s*([-+−$]?\d.*)")
MATH = re2.compile(r"\$([^$]+)\$")
LETTER = re2.compile(r"\(?([A-J])\)?[.:]?")
CHOICE = re2.compile(r"(?:^|[^A-Za-z0-9'])\(?([A-J])\)?(?:[^A-Za-z0-9']|$)")
CHOICE_MARK = re2.compile(r"(?i)(?:answer|choice|option)(?:\s+is)?\s*[:=]?\s*[*(\[]*(?-i:([A-J]))(?:[^A-Za-z0-9']|$)")
MAX_PATTERN_LENGTH = 1000
SEARCHED_CHARACTERS = 8192
"""How much of a text's end a client's pattern is searched in: looking for its last match can take quadratic time."""

RE2_MEMORY_BYTES = 8 << 20

Extractor = Callable[[str], str | None]


class PatternError(ValueError):
    """An extractor's pattern that can't be used; the message says why."""


def after_thinking(text: str) -> str:
    """What follows the reasoning, where the server left reasoning in the text."""
    return text.rpartition("</think>")[2]


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip() or None
    return None


def number(text: str) -> str | None:
    """The last number, as written but for thousands separators and currency."""
    numbers = NUMBER.findall(text)
    return _plain(numbers[-1]) if numbers else None


def choice(text: str) -> str | None:
    """The last choice letter, A to J: after "answer", "choice" or "option" if one stands there, else anywhere."""
    letters = CHOICE_MARK.findall(text) or CHOICE.findall(text)
    return letters[-1] if letters else None


def last_line(text: str) -> str | None:
    """The last line that is not blank."""
    lines = text.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def marked(text: str) -> str | None:
    """What follows the last "answer is", "answer:", or "####" and a number, on its line: the formula between dollar
    signs, number or choice letter that it begins with, else all of it.
    """
    marks = ANSWER_MARK.findall(text)
    if not marks:
        return None
    rest = "".join(marks[-1]).strip().strip("*_`").strip()
    if formula := MATH.match(rest):
        return str(formula.group(1)).strip() or None
    if leading := LEADING_NUMBER.match(rest):
        return _plain(leading.group(1))
    if letter := LETTER.fullmatch(rest):
        return str(letter.group(1))
    return rest.rstrip(".*_` ") or None


def auto(text: str) -> str | None:
    """Boxed, else marked, else the last number, else the last line."""
    return boxed(text) or marked(text) or number(text) or last_line(text)


def regex(pattern: str) -> Extractor:
    """The last match's first group, or the whole match where the pattern has no group.

    The engine is RE2: time linear in the text, so no look-around and no back-references. Raises PatternError.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"the pattern has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH} are allowed")
    options = re2.Options()
    options.max_mem = RE2_MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options=options)
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


def json_pointer(pointer: str) -> Extractor:
    """The value at an RFC 6901 pointer in the text's JSON (its last fenced block, or all of it), as canonical JSON.

    Raises PatternError for what is not a pointer.
    """
    if pointer and not pointer.startswith("/"):
        raise PatternError(f"the pattern {pointer!r} is not a JSON pointer: it must be empty or start with '/'")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]

    def extract(text: str) -> str | None:
        fenced = [block.removeprefix("json") for block in text.split("```")[1::2]]
        for candidate in (*reversed(fenced), text):
            try:
                return _canonical(_follow(json.loads(candidate), parts))
            except (ValueError, KeyError, IndexError, RecursionError):
                continue
        return None

    return extract


def _plain(number: str) -> str:
    return number.replace(",", "").replace("$", "").replace("−", "-")


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


def _canonical(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


EXTRACTORS: dict[str, Extractor] = {
    "auto": auto,
    "boxed": boxed,
    "number": number,
    "choice": choice,
    "last_line": last_line,
}
PATTERN_EXTRACTORS: dict[str, Callable[[str], Extractor]] = {"regex": regex, "json_pointer": json_pointer}


def extractor(name: str, pattern: str | None, ignored: frozenset[str] = frozenset()) -> Extractor:
    """The extractor of that name; `regex` and `json_pointer` need a pattern, the others take none.

    ignored: fields that `json` leaves out. Raises PatternError.
    """
    if name in PATTERN_EXTRACTORS:
        if pattern is None:
            raise PatternError(f"the extractor {name!r} needs a pattern")
        extract = PATTERN_EXTRACTORS[name](pattern)
    else:
        if pattern is not None:
            raise PatternError(f"the extractor {name!r} takes no pattern; only regex and json_pointer do")
        extract = json_text(ignored) if name == "json" else EXTRACTORS[name]

    def extract_text(text: str) -> str | None:
        answer = extract(after_thinking(text))
        # JSON may escape half a surrogate pair, which no response can carry.
        return answer.encode(errors="replace").decode() if answer is not None else None

    return extract_text
