"""HTTP/1.1 that gives up on clients whose headers are too long or too long in coming, or that read no answer."""

import asyncio
import json
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 64 << 10
HEADERS_WITHIN_S = 10.0

READ_WITHIN_S = 60.0
"""Seconds in which a client has to read some of what waits for it: an engine generates its stream, and its quota is
reserved, for as long as it stays."""

_TOO_LONG = f"the headers are longer than the {MAX_HEADER_BYTES} bytes allowed"


class _Parser(httptools.HttpRequestParser):
    """Goes on with a request that asks for another protocol, as Java's client asks for HTTP/2 beside its body.

    None other is served, so that may be ignored (RFC 9110, 7.8). httptools would take what follows the headers for the
    other protocol: it gets them once more, without that wish.
    """

    def __init__(self, protocol: "LimitedHttp") -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it

    @property
    def asks_for_another_protocol(self) -> bool:
        return self.should_upgrade() and self.get_method() != b"CONNECT"

    # httptools takes any buffer; uvicorn hands over bytes alone.
    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.asks_for_another_protocol:
                raise
            headers = [(name, value) for name, value in self._protocol.headers if name != b"upgrade"]
            lines = [b"%s: %s\r\n" % header for header in headers]
            version = self.get_http_version().encode()
            begin = b"%s %s HTTP/%s\r\n" % (self.get_method(), self._protocol.url, version)
            self.feed_data(b"".join([begin, *lines, b"\r\n", data[upgrade.args[0] :]]))


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol on httptools, which itself waits for ever and takes any length."""

    _header_bytes = 0
    _waiting: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _in_headers = True

    parser: _Parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parser = _Parser(self)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(READ_WITHIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._read()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
            if self._waiting is None and self._answered:
                self._await_headers()
        super().data_received(data)
        if not self._in_headers and self._waiting is None and self._answered:
            self._waiting = self.loop.call_later(HEADERS_WITHIN_S, self.transport.close)  # of a body nobody reads
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:  # and their end is not in sight
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LONG)

    @property
    def _answered(self) -> bool:
        """No request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def on_headers_complete(self) -> None:
        if self.parser.asks_for_another_protocol:  # they come once more
            return
        self._in_headers = False
        self._stop_waiting()
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > MAX_HEADER_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LONG)
            raise ValueError(_TOO_LONG)  # ends the parsing
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def on_message_complete(self) -> None:
        if self.parser.asks_for_another_protocol:
            return
        super().on_message_complete()
        self._stop_waiting()
        self._header_bytes = 0
        self._in_headers = True  # of the next request; the keep-alive timeout waits for its first byte

    def _await_headers(self) -> None:
        message = f"no complete request within {HEADERS_WITHIN_S:g} s"
        self._waiting = self.loop.call_later(HEADERS_WITHIN_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, message)

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._stop_waiting()
        if self.transport.is_closing():
            return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request"}
        content = json.dumps({"error": error}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
