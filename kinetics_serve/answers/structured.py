"""Answers that are data: JSON texts and tool calls, written so that equal ones are the same string."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = dict[str, Any]


def canonical(value: Any, ignored: frozenset[str] = frozenset()) -> str:
    """JSON with sorted keys, no white space, whole floats as integers, and without the ignored fields at any depth."""
    return json.dumps(_plain(value, ignored), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def json_text(ignored: frozenset[str] = frozenset()) -> Callable[[str], str | None]:
    """The whole text as canonical JSON, or its last fenced block; None where neither is JSON."""

    def extract(text: str) -> str | None:
        fenced = [block.removeprefix("json") for block in text.split("```")[1::2]]
        for candidate in (text, *reversed(fenced)):
            try:
                return canonical(json.loads(candidate), ignored)
            except (ValueError, RecursionError):
                continue
        return None

    return extract


def tool_calls(calls: Iterable[Mapping[str, Any]], ignored: frozenset[str] = frozenset()) -> str:
    """The calls of an OpenAI message by name, then arguments. Calls made at once have no order.

    Arguments that are no JSON count as the text they are.
    """
    return canonical(sorted([_call(call["function"], ignored) for call in calls], key=canonical))


def _call(function: Json, ignored: frozenset[str]) -> Json:
    try:
        arguments = json.loads(function["arguments"] or "{}")
        return {"name": function["name"], "arguments": _plain(arguments, ignored)}
    except (ValueError, RecursionError):
        return {"name": function["name"], "text": function["arguments"].strip()}


def _plain(value: Any, ignored: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each, ignored) for key, each in value.items() if key not in ignored}
    if isinstance(value, list):
        return [_plain(each, ignored) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
