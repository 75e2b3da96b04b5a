"""How each of vLLM's APIs says what a request has used, and when."""

import re
from typing import Any, Protocol

from kinetics_serve.engine.upstream import Json
from kinetics_serve.engine.usage import count
from kinetics_serve.passthrough.events import Event, object_in
from kinetics_serve.passthrough.tab import Tab

UNSHOWN_TOKENS = 64
"""More than are generated without a word of them in a stream: the markers around reasoning, the white space beside
those, a character that is not complete yet."""

_OBJECT = rb"\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}"
_USAGE = re.compile(rb',\s*"usage":\s*(?:null|' + _OBJECT + rb')|"usage":\s*(?:null|' + _OBJECT + rb")\s*,\s*")
"""Matched in the bytes of a JSON object: a quote inside any of its texts is escaped, so only its keys match."""


class Dialect(Protocol):
    """counts_tokens: a stream says at any moment what it has used so far, not only at its end."""

    counts_tokens: bool

    def read_answer(self, content: bytes, tab: Tab) -> None:
        """Takes in a whole answer."""

    def read_event(self, event: Event, tab: Tab) -> bytes:
        """Takes in a stream's event, and returns what of it the client asked for."""

    @classmethod
    def is_last(cls, event: Event) -> bool:
        """The client takes the answer as complete with this event."""

    def broke_off(self, tab: Tab) -> None:
        """The engine failed in the middle of the stream: what it has told of, or shown, is what it cost."""


class Completions:
    """Chat completions and completions. options: the client's `stream_options`; we ask for all usage there is."""

    def __init__(self, options: Json, body: Json) -> None:
        self.counts_tokens = not _hides_reasoning(body) and body.get("stream_interval") in (None, 1)
        self._usage = bool(options.get("include_usage"))
        self._continuous = self._usage and bool(options.get("continuous_usage_stats"))
        self._tells_always: bool | None = None
        """Whether the engine tells of usage in every chunk, as we ask it to; None before the first."""

    def read_answer(self, content: bytes, tab: Tab) -> None:
        tab.read_total(object_in(content) or {})

    def read_event(self, event: Event, tab: Tab) -> bytes:
        chunk = event.json()
        if chunk is None:
            return event.raw
        tab.read(chunk)
        if chunk.get("choices") == [] and chunk.get("usage") is not None:
            return event.raw if self._usage else b""
        if self._tells_always is None:
            self._tells_always = chunk.get("usage") is not None
        if "usage" not in chunk or self._continuous or (self._usage and not self._tells_always):
            return event.raw
        return _without_usage(event, chunk)

    @classmethod
    def is_last(cls, event: Event) -> bool:
        return event.data.strip() == b"[DONE]"

    def broke_off(self, tab: Tab) -> None:
        tab.accepted()


class _TotalAtTheEnd:
    """A token stands for at least one byte, so the text that a stream has shown bounds what was generated for it, where
    all of that is shown.
    """

    counts_tokens = False
    _with_usage: re.Pattern[str]
    _with_text: re.Pattern[str]
    _last: re.Pattern[str]

    def __init__(self, body: Json) -> None:
        self._unshown = _unshown_tokens(body)
        self._shown = 0
        """Bytes of text."""
        self._told = False

    def read_answer(self, content: bytes, tab: Tab) -> None:
        self._read(object_in(content) or {}, tab)

    def read_event(self, event: Event, tab: Tab) -> bytes:
        kind, data = _kind(event), event.json()
        if data is not None and self._with_usage.fullmatch(kind) and self._read(data, tab):
            self._told = True
        elif not self._told:
            if self._with_text.fullmatch(kind):
                self._shown += len(event.data) if data is None else _shown_bytes(data)
            if self._unshown is not None:
                tab.at_most(self._shown + self._unshown)
        return event.raw

    def broke_off(self, tab: Tab) -> None:
        if not self._told:
            tab.at_most(self._shown)

    @classmethod
    def is_last(cls, event: Event) -> bool:
        return cls._last.fullmatch(_kind(event)) is not None

    def _read(self, answer: Json, tab: Tab) -> bool:
        """Whether it says what was used in all."""
        raise NotImplementedError


class Responses(_TotalAtTheEnd):
    _with_usage = _last = re.compile(r"response\.(completed|incomplete|failed)")
    _with_text = re.compile(r"response\.[a-z_.]+\.delta")

    def _read(self, answer: Json, tab: Tab) -> bool:
        response = answer.get("response", answer)
        usage = response.get("usage") if isinstance(response, dict) else None
        tokens = count(usage, "output_tokens")
        if tokens is None or usage is None:
            return False
        tab.total(count(usage, "input_tokens"), tokens, count(usage.get("input_tokens_details"), "cached_tokens"))
        return True


class Messages(_TotalAtTheEnd):
    """Anthropic's API, whose input tokens leave the cached ones out, and whose stream tells them at its beginning, at
    its end, or both.
    """

    _with_usage = re.compile(r"message_(start|delta)")
    _with_text = re.compile(r"content_block_delta")
    _last = re.compile(r"message_stop")

    def __init__(self, body: Json) -> None:
        super().__init__(body)
        self._began: Json = {}

    def _read(self, answer: Json, tab: Tab) -> bool:
        if answer.get("type") == "message_start":
            message = answer.get("message")
            usage = message.get("usage") if isinstance(message, dict) else None
            self._began = usage if isinstance(usage, dict) else {}
            return False
        usage = answer.get("usage")
        tokens = count(usage, "output_tokens")
        if tokens is None or usage is None:
            return False
        usage = self._began | {key: value for key, value in usage.items() if value is not None}
        new = count(usage, "input_tokens")
        cached, written = (count(usage, f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
        tab.total(None if new is None else new + cached + written, tokens, cached)
        return True


def _without_usage(event: Event, chunk: Json) -> bytes:
    """The event without its data's own `usage`; a key of that name deeper inside is the client's."""
    if event.raw.count(b'"usage"') == 1:
        return _USAGE.sub(b"", event.raw)
    rest = {key: value for key, value in chunk.items() if key != "usage"}
    found = (event.raw[: usage.start()] + event.raw[usage.end() :] for usage in _USAGE.finditer(event.raw))
    return next((raw for raw in found if Event(raw).json() == rest), event.raw)


def of(path: str) -> type[Dialect]:
    """What the streams of vLLM's API at `path` speak: most end as completions do."""
    others: dict[str, type[Dialect]] = {"/v1/responses": Responses, "/v1/messages": Messages}
    return others.get(path, Completions)


def _kind(event: Event) -> str:
    """Of an event: its name, or what its data says where it has none."""
    if event.name:
        return event.name.decode(errors="replace")
    kind = (event.json() or {}).get("type")
    return kind if isinstance(kind, str) else ""


def _shown_bytes(value: Any, depth: int = 4) -> int:
    """Of the texts that an event of generation may show, wherever they stand in it, as deep as any API has them."""
    if not isinstance(value, dict) or depth == 0:
        return 0
    texts = [value.get(key) for key in ("delta", "text", "thinking")]
    return sum(
        len(text.encode(errors="replace")) if isinstance(text, str) else _shown_bytes(text, depth - 1) for text in texts
    )


def _hides_reasoning(body: Json) -> bool:
    """vLLM tells of no token of it then. What isn't true may be false to vLLM, such as 0."""
    return body.get("include_reasoning") not in (None, True)


def _unshown_tokens(body: Json) -> int | None:
    """The most tokens that have been generated and not been shown, at any moment of the request's stream.

    None where there may be any number: a tool call is held back until it can be read, and special tokens, which a
    request can ask for, never show.
    """
    asks_for_special = body.get("logit_bias") or body.get("ignore_eos")
    if asks_for_special or body.get("tools") or _hides_reasoning(body):
        return None
    stops = body.get("stop") or body.get("stop_sequences") or []
    stops = [stops] if isinstance(stops, str) else stops
    if not isinstance(stops, list):
        return None
    held_back = max((len(str(stop).encode(errors="replace")) for stop in stops), default=0)  # it may become one
    return UNSHOWN_TOKENS + held_back
