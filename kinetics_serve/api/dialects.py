"""How each of vLLM's APIs says what a request has used, and when."""

import json
import re
from typing import Protocol

from kinetics_serve.api.meter import NO_CHOICES, USAGE, Meter
from kinetics_serve.engine.upstream import Json


class Dialect(Protocol):
    """counts_tokens: a stream says with each event what it has used so far, not only at its end."""

    counts_tokens: bool

    def read_answer(self, content: bytes, meter: Meter) -> None:
        """Takes in a whole answer."""

    def read_event(self, event: bytes, meter: Meter) -> bytes:
        """Takes in a stream's event, and returns what of it the client asked for."""

    def is_last(self, event: bytes) -> bool:
        """The client takes the answer as complete with this event."""


class Completions:
    """Chat completions and completions. options: the client's `stream_options`; we ask for all usage there is."""

    counts_tokens = True

    def __init__(self, options: Json) -> None:
        self._usage = bool(options.get("include_usage"))
        self._continuous = self._usage and bool(options.get("continuous_usage_stats"))

    def read_answer(self, content: bytes, meter: Meter) -> None:
        meter.read_total(content)

    def read_event(self, event: bytes, meter: Meter) -> bytes:
        meter.read(event)
        if NO_CHOICES.search(event):
            return event if self._usage else b""
        return event if self._continuous else USAGE.sub(b"", event)

    def is_last(self, event: bytes) -> bool:
        return event.startswith(b"data: [DONE]")


class _TotalAtTheEnd:
    """Answers are parsed, not searched: they repeat parts of the request, which may look like usage."""

    counts_tokens = False
    _with_usage: re.Pattern[bytes]
    _last: re.Pattern[bytes]

    def read_answer(self, content: bytes, meter: Meter) -> None:
        self._read(_object(content), meter)

    def read_event(self, event: bytes, meter: Meter) -> bytes:
        if self._with_usage.match(event):
            self._read(_object(event.partition(b"data:")[2]), meter)
        return event

    def is_last(self, event: bytes) -> bool:
        return self._last.match(event) is not None

    def _read(self, answer: Json, meter: Meter) -> None:
        raise NotImplementedError


class Responses(_TotalAtTheEnd):
    _with_usage = _last = re.compile(rb"event: response\.(completed|incomplete|failed)\n")

    def _read(self, answer: Json, meter: Meter) -> None:
        usage = answer.get("response", answer).get("usage")
        if usage:
            cached = usage.get("input_tokens_details", {}).get("cached_tokens") or 0
            meter.total(usage["input_tokens"], usage["output_tokens"], cached)


class Messages(_TotalAtTheEnd):
    """Anthropic's API, whose input tokens leave the cached ones out."""

    _with_usage = re.compile(rb"event: message_delta\n")
    _last = re.compile(rb"event: message_stop\n")

    def _read(self, answer: Json, meter: Meter) -> None:
        usage = answer.get("usage")
        if usage:
            cached = usage.get("cache_read_input_tokens") or 0
            written = usage.get("cache_creation_input_tokens") or 0
            meter.total(usage["input_tokens"] + cached + written, usage["output_tokens"], cached)


def _object(content: bytes) -> Json:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
