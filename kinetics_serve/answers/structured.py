"""Answers that are data: JSON texts and tool calls, written so that equal ones are the same string."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from math import isinf
from typing import Any, NoReturn

_FENCED = re.compile(r"(```|~~~)[ \t]*[a-zA-Z0-9]*([\s\S]*?)(?:\1|\Z)")

Json = dict[str, Any]


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, RecursionError.

    NaN and infinities are no JSON (RFC 8259), and numbers beyond what a double holds would be infinite.
    """
    return json.loads(text, parse_constant=_no_constant, parse_float=_number)


def canonical(value: Any, ignored: frozenset[str] = frozenset()) -> str:
    """JSON with sorted keys, no white space, whole floats as integers, and without the ignored fields at any depth."""
    return json.dumps(_plain(value, ignored), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_text(ignored: frozenset[str] = frozenset()) -> Callable[[str], str | None]:
    """The whole text as canonical JSON, or its last fenced block, or what stands between its first brace and its last;
    None where none is JSON.
    """

    def extract(text: str) -> str | None:
        for candidate in _candidates(text):
            try:
                return canonical(loads(candidate), ignored)
            except (ValueError, RecursionError):
                continue
        return None

    return extract


def answer_in_json(text: str) -> str | None:
    """The field "answer" of the object that a text is, or that is fenced last in it; without that field, the object."""
    for candidate in (text, *fenced(text)):
        if not candidate.strip().startswith("{"):
            continue
        try:
            value = loads(candidate)
        except (ValueError, RecursionError):
            continue
        answer = value.get("answer", value)
        return answer if isinstance(answer, str) and answer else canonical(answer)
    return None


def fenced(text: str) -> list[str]:
    """The blocks between fences, whatever language they name, from the last to the first."""
    return [found[2] for found in _FENCED.finditer(text)][::-1]


def _candidates(text: str) -> list[str]:
    """Where JSON may stand: all of the text, fenced blocks, and from the first brace to the last."""
    return [text, *fenced(text), text[text.find("{") : text.rfind("}") + 1]]


def tool_calls(calls: Iterable[Mapping[str, Any]], ignored: frozenset[str] = frozenset()) -> str | None:
    """The calls of an OpenAI message by name, then arguments. Calls made at once have no order.

    None where one of them cannot be made: it has no name, or its arguments are no JSON object.
    """
    made = [_call(call.get("function"), ignored) for call in calls]
    return canonical(sorted(made, key=canonical)) if all(call is not None for call in made) else None


def _call(function: Any, ignored: frozenset[str]) -> Json | None:
    try:
        name, arguments = function["name"], loads(function["arguments"] or "{}")
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    return {"name": name, "arguments": _plain(arguments, ignored)}


def _plain(value: Any, ignored: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each, ignored) for key, each in value.items() if key not in ignored}
    if isinstance(value, list):
        return [_plain(each, ignored) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _number(text: str) -> int | float:
    """Whole numbers exactly: 9007199254740993.0 is no double."""
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text[:20]} is too large")
    return int(Decimal(text)) if value.is_integer() and Decimal(text) == Decimal(text).to_integral_value() else value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
