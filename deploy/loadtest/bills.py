"""What a client sees of one request: when its text came, what went wrong, and what it cost."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
Clock = Callable[[], float]
"""Seconds since the request was sent."""

DATA = b"data:"
DONE = b"[DONE]"


@dataclass(slots=True)
class Answer:
    """text_s: seconds to the first text; None where there is none. bill: the `kinetics` object; empty without a budget.
    code: of the error that it ended with."""

    text_s: float | None = None
    bill: Json = field(default_factory=dict)
    code: str | None = None


def read_whole(body: Json, clock: Clock) -> Answer:
    """An answer that came at once: its text is there when it is."""
    if "error" in body:
        return Answer(code=_code(body))
    says_something = any(_text(choice.get("message") or {}) for choice in body.get("choices") or ())
    return Answer(clock() if says_something else None, body.get("kinetics") or {})


def read_stream(lines: Iterable[bytes], clock: Clock) -> Answer:
    """The lines of a stream of chat completion chunks, as they arrive.

    Chunks without `choices` tell progress: neither text nor bill. The bill is on the chunk that ends the choice. What
    ends without `[DONE]` was broken off.
    """
    answer = Answer(code="broken_off")
    for line in lines:
        if not line.startswith(DATA):
            continue  # comments that keep the connection open, and blank lines
        data = line[len(DATA) :].strip()
        if data == DONE:
            answer.code = None if answer.code == "broken_off" else answer.code
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            answer.code = _code(chunk)
        choices = chunk.get("choices") or ()
        if answer.text_s is None and any(_text(choice.get("delta") or {}) for choice in choices):
            answer.text_s = clock()
        if "stop_reason" in (told := chunk.get("kinetics") or {}):
            answer.bill = told
    return answer


def agreement(bill: Json) -> float | None:
    """The share of the votes that say what the answer says; None where nobody voted."""
    votes = bill.get("votes") or ()
    agreeing = sum(vote["count"] for vote in votes if vote["answer"] == bill.get("answer"))
    return agreeing / sum(vote["count"] for vote in votes) if votes else None


def _text(message: Json) -> bool:
    """Whether a message or delta says anything: text, reasoning or a call."""
    return any(message.get(name) for name in ("content", "reasoning", "reasoning_content", "refusal", "tool_calls"))


def _code(body: Json) -> str:
    error = body["error"]
    return str(error.get("code") or "unknown") if isinstance(error, dict) else "unknown"
