"""How each of vLLM's APIs says what a request has used, and when."""

import json
import re
from typing import Protocol

from kinetics_serve.engine.upstream import Json
from kinetics_serve.passthrough.tab import NO_CHOICES, USAGE, Tab

UNSHOWN_TOKENS = 64
"""More than are generated without a word of them in a stream: the markers around reasoning, the white space beside
those, a character that is not complete yet."""

_TEXT = re.compile(rb'"(?:delta|text|thinking)":\s*"((?:[^"\\]|\\.)*)"')


class Dialect(Protocol):
    """counts_tokens: a stream says with each event what it has used so far, not only at its end."""

    counts_tokens: bool

    def read_answer(self, content: bytes, tab: Tab) -> None:
        """Takes in a whole answer."""

    def read_event(self, event: bytes, tab: Tab) -> bytes:
        """Takes in a stream's event, and returns what of it the client asked for."""

    def is_last(self, event: bytes) -> bool:
        """The client takes the answer as complete with this event."""


class Completions:
    """Chat completions and completions. options: the client's `stream_options`; we ask for all usage there is."""

    counts_tokens = True

    def __init__(self, options: Json) -> None:
        self._usage = bool(options.get("include_usage"))
        self._continuous = self._usage and bool(options.get("continuous_usage_stats"))

    def read_answer(self, content: bytes, tab: Tab) -> None:
        tab.read_total(content)

    def read_event(self, event: bytes, tab: Tab) -> bytes:
        tab.read(event)
        if NO_CHOICES.search(event):
            return event if self._usage else b""
        return event if self._continuous else USAGE.sub(b"", event)

    def is_last(self, event: bytes) -> bool:
        return event.startswith(b"data: [DONE]")


class _TotalAtTheEnd:
    """Answers are parsed, not searched: they repeat parts of the request, which may look like usage.

    A token stands for at least one byte, so the text that a stream has shown bounds what was generated for it, where
    all of that is shown.
    """

    counts_tokens = False
    _with_usage: re.Pattern[bytes]
    _with_text: re.Pattern[bytes]
    _last: re.Pattern[bytes]

    def __init__(self, body: Json) -> None:
        self._most = _unshown_tokens(body)

    def read_answer(self, content: bytes, tab: Tab) -> None:
        self._read(_object(content), tab)

    def read_event(self, event: bytes, tab: Tab) -> bytes:
        if self._with_usage.match(event):
            self._most = None
            self._read(_object(event.partition(b"data:")[2]), tab)
        elif self._most is not None:
            if self._with_text.match(event):
                self._most += sum(map(len, _TEXT.findall(event)))
            tab.at_most(self._most)
        return event

    def is_last(self, event: bytes) -> bool:
        return self._last.match(event) is not None

    def _read(self, answer: Json, tab: Tab) -> None:
        raise NotImplementedError


class Responses(_TotalAtTheEnd):
    _with_usage = _last = re.compile(rb"event: response\.(completed|incomplete|failed)\n")
    _with_text = re.compile(rb"event: response\.[a-z_.]+\.delta\n")

    def _read(self, answer: Json, tab: Tab) -> None:
        usage = answer.get("response", answer).get("usage")
        if usage:
            cached = usage.get("input_tokens_details", {}).get("cached_tokens") or 0
            tab.total(usage["input_tokens"], usage["output_tokens"], cached)


class Messages(_TotalAtTheEnd):
    """Anthropic's API, whose input tokens leave the cached ones out."""

    _with_usage = re.compile(rb"event: message_delta\n")
    _with_text = re.compile(rb"event: content_block_delta\n")
    _last = re.compile(rb"event: message_stop\n")

    def _read(self, answer: Json, tab: Tab) -> None:
        usage = answer.get("usage")
        if usage:
            cached = usage.get("cache_read_input_tokens") or 0
            written = usage.get("cache_creation_input_tokens") or 0
            tab.total(usage["input_tokens"] + cached + written, usage["output_tokens"], cached)


def _unshown_tokens(body: Json) -> int | None:
    """The most tokens that have been generated and not been shown, at any moment of the request's stream.

    None where there may be any number: a tool call is held back until it can be read, and special tokens, which a
    request can ask for, never show.
    """
    asks_for_special = body.get("logit_bias") or body.get("ignore_eos")
    if asks_for_special or body.get("tools") or body.get("include_reasoning") is False:
        return None
    stops = body.get("stop") or body.get("stop_sequences") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list):
        return None
    held_back = max((len(str(stop).encode(errors="replace")) for stop in stops), default=0)  # it may become one
    return UNSHOWN_TOKENS + held_back


def _object(content: bytes) -> Json:
    try:
        value = json.loads(content)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
