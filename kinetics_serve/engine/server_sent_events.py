"""Server-sent events, from whatever pieces a connection hands out.

As WHATWG's HTML has them (9.2.6): lines end in CRLF, LF or CR, an empty line ends an event, a line that begins with a
colon is a comment, and several `data` lines of an event are one text.
"""

import re

MAX_EVENT_BYTES = 16 << 20
"""Far above the longest event of a real server; what goes on for longer would only fill the memory."""

_LINE_END = re.compile(rb"\r\n|\n|\r")
_EMPTY_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")  # atomic: a CRLF is one line end, not two
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """An event without an end."""


class EventSplitter:
    """Cuts a stream into its events and loses no byte of it: what `feed` and `rest` return is what came."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []  # pieces of an event, joined at its end only: a long one has hundreds
        self._size = 0
        self._tail = b""  # where an empty line may have begun

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that are complete now, each with the empty line that ends it. Raises EventTooLong."""
        if self._begun and not _EMPTY_LINE.search(joint := self._tail + piece):
            self._keep(piece, joint[-3:])
            return []
        buffer = self.rest() + piece
        if b"\r" not in buffer:
            *events, rest = buffer.split(b"\n\n")
            events = [event + b"\n\n" for event in events]
        else:
            events, begin = [], 0
            for end in _EMPTY_LINE.finditer(buffer):
                events.append(buffer[begin : end.end()])
                begin = end.end()
            rest = buffer[begin:]
        if rest:
            self._keep(rest, rest[-3:])
        return events

    def rest(self) -> bytes:
        """What came after the last event's end, at the end of the stream."""
        rest = b"".join(self._begun)
        self._begun, self._size = [], 0
        return rest

    def _keep(self, piece: bytes, tail: bytes) -> None:
        self._begun.append(piece)
        self._size += len(piece)
        self._tail = tail
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event of more than {MAX_EVENT_BYTES} bytes")


def data_of(event: bytes) -> bytes | None:
    """The text of an event's `data`; None where it has none: a comment, another field, or nothing at all."""
    text = event.rstrip(b"\r\n")
    if text.startswith(b"data: ") and b"\n" not in text and b"\r" not in text:  # as nearly all are
        return text[6:]
    found = []
    for line in _LINE_END.split(text.removeprefix(_BYTE_ORDER_MARK)):
        name, _, value = line.partition(b":")
        if name == b"data":
            found.append(value.removeprefix(b" "))
    return b"\n".join(found) if found else None


class DataWatch:
    """Tells how much a stream that is passed on, piece by piece, says."""

    _DATA = re.compile(rb"(?:\A|[\r\n])data:[^\r\n]*(?=[\r\n])")

    def __init__(self) -> None:
        self._line = b""

    def sees(self, piece: bytes) -> int:
        """How many lines of data end in the piece. Comments, and bytes that end no line, are none."""
        text = self._line + piece
        end = max(text.rfind(b"\n"), text.rfind(b"\r"))
        self._line = text[end + 1 : end + 1 + len(b"data:")]
        return len(self._DATA.findall(text))
