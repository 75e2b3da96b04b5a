"""Clients that send too much, too slowly, or nonsense, on a real socket."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from kinetics_serve.requests import body as request_body
from kinetics_serve.requests import errors
from kinetics_serve.requests.services import Settings
from kinetics_serve.server import limited_http
from kinetics_serve.server.limited_http import MAX_HEADER_BYTES, LimitedHttp
from tests.front_ends import running

PATIENCE_S = 60.0
"""Much longer than anything here may take, and shorter than for ever."""

ended = threading.Event()
"""Of an answer that has no end of its own."""


def app() -> FastAPI:
    app = FastAPI()
    errors.install(app)

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request_body.read(request, Settings()))

    @app.post("/soon")
    async def soon(request: Request) -> int:
        return len(await request_body.read(request, Settings(body_timeout_s=0.5)))

    @app.get("/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                ended.set()

        return StreamingResponse(pieces())

    @app.post("/slow")
    async def slow(request: Request) -> int:
        await asyncio.sleep(1)
        return len(await request.body())

    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with running(app(), http=LimitedHttp) as port:
        yield port


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_http, "HEADERS_WITHIN_S", 0.5)


def answer(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    connection.settimeout(PATIENCE_S)
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def status(received: bytes) -> int:
    return int(received.split()[1])


@pytest.mark.usefixtures("impatience")
def test_headers_that_do_not_come_are_not_waited_for(port: int) -> None:
    for beginning in (b"", b"POST /length HTTP/1.1\r\nhost: x\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(beginning)
            assert status(answer(connection)) == 408


@pytest.mark.usefixtures("impatience")
def test_headers_that_drip_are_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        begun = time.monotonic()
        connection.settimeout(0.1)
        received = b""
        while not received and time.monotonic() - begun < PATIENCE_S:
            connection.sendall(b"a: b\r\n")
            with suppress(TimeoutError):
                received = connection.recv(1000)
        assert status(received) == 408


def test_long_headers_are_refused_in_the_envelope(port: int) -> None:
    answered = httpx.get(f"http://127.0.0.1:{port}/length", headers={"x": "y" * MAX_HEADER_BYTES})
    assert answered.status_code == 431
    assert answered.json()["error"]["code"] == "invalid_request"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEADER_BYTES + 1))
        assert status(answer(connection)) == 431


def test_nonsense_is_refused_in_the_envelope(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        received = answer(connection)
    assert status(received) == 400
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_body_that_does_not_come_is_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /soon HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n123")
        received = answer(connection)
    assert status(received) == 408
    assert b"did not arrive within 0.5 s" in received


@pytest.mark.usefixtures("impatience")
def test_large_bodies_and_many_requests_on_one_connection_pass(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for size in (0, 1, MAX_HEADER_BYTES * 3, 10):
            assert client.post("/length", content=b"x" * size).json() == size
        time.sleep(0.7)  # longer than headers may take: silence between requests is no fault
        assert client.post("/length", content=b"x").json() == 1


@pytest.mark.usefixtures("impatience")
def test_a_body_that_nobody_reads_is_not_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert status(connection.recv(65536)) == 404
        connection.sendall(b"x")
        answer(connection)


def test_an_answer_that_nobody_reads_is_not_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_http, "READ_WITHIN_S", 0.5)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        assert status(connection.recv(1000)) == 200
        assert ended.wait(PATIENCE_S)


def test_an_answer_that_is_read_slowly_is_kept(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_http, "READ_WITHIN_S", 3.0)  # this machine stands still for less, as a rule
    ended.clear()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            connection.recv(1 << 20)
            time.sleep(0.05)
        assert not ended.is_set()
    assert ended.wait(PATIENCE_S)


@pytest.mark.usefixtures("impatience")
def test_an_empty_line_after_a_body_leaves_the_answer_alone(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx\r\n")
        received = connection.recv(65536)
        assert status(received) == 200
        assert b"408" not in received


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
"""What Java's client sends along with its first request."""


@pytest.mark.parametrize("upgrade", [H2C, b"connection: upgrade\r\nupgrade: websocket\r\n"])
@pytest.mark.parametrize("late", [False, True])
def test_a_wish_for_another_protocol_is_passed_over(port: int, upgrade: bytes, late: bool) -> None:
    head = b"POST /length HTTP/1.1\r\nhost: x\r\n" + upgrade + b"content-length: 5\r\n\r\n"
    chunks = head.replace(b"content-length: 5", b"transfer-encoding: chunked")
    last = b"POST /length HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\n"
    for begin, body in ((head, b"12345"), (chunks, b"5\r\n12345\r\n0\r\n\r\n")):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(begin if late else begin + body)
            if late:
                time.sleep(0.1)
                connection.sendall(body)
            connection.settimeout(PATIENCE_S)
            received = b""
            while not received.endswith(b"\r\n\r\n5"):
                received += connection.recv(65536)
            assert status(received) == 200
            connection.sendall(last + b"123")
            assert answer(connection).endswith(b"\r\n3")
