"""Answers that are programs: where they stand in a text, and when two of them write the same."""

import re
from decimal import Decimal, InvalidOperation

from kinetics_serve.answers.structured import canonical, loads

_LANGUAGE = re.compile(r"[ \t]*([A-Za-z0-9+#_.-]*)[^\n]*\n?")
_PYTHON = frozenset({"python", "python3", "py", "py3"})


def code(text: str) -> str | None:
    """The last fenced block that says it is Python, else the last fenced block; one that never ends counts."""
    blocks = [(_LANGUAGE.match(block), block) for block in text.split("```")[1::2]]
    found = [(language[1].lower(), block[language.end() :].strip("\n")) for language, block in blocks if language]
    programs = [program for language, program in found if language in _PYTHON] or [program for _, program in found]
    return programs[-1] or None if programs else None


def written(output: str) -> list[str]:
    """What a program wrote to stdout, as lines that are equal where two programs say the same: without spaces at their
    ends, and numbers by their exact values.
    """
    return [_line(line.strip()) for line in output.strip().splitlines()]


def returned(output: str) -> str:
    """The JSON value on the last line, canonical. Raises ValueError, RecursionError."""
    lines = output.strip().splitlines()
    return canonical(loads(lines[-1] if lines else ""))


def _line(line: str) -> str:
    try:
        return " ".join(map(_number, line.split()))
    except InvalidOperation:
        return line


def _number(word: str) -> str:
    value = Decimal(word)
    if not value.is_finite():
        raise InvalidOperation
    if not value:
        return "0"
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    significant = "".join(map(str, digits)).rstrip("0")
    return f"{'-' * sign}{significant}e{exponent + len(digits) - len(significant)}"
