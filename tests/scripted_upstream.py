"""A stand-in for vLLM that sends exactly the bytes that it is told to, in the pieces and at the times that it is told.

It shares nothing with the product's own idea of a server: what it says is in each test, byte for byte.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fake_vllm import CONFIG, CONTEXT, MODEL, PROMPT_TOKENS

Json = dict[str, Any]

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"
"""A stream that lasts until its connection is closed."""


class Break:
    """The connection is reset."""


Piece = bytes | float | Break
"""Bytes to send at once, or seconds to wait."""


def head(status: str, *headers: str, length: int | None = 0) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, *([f"content-length: {length}"] if length is not None else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def whole(body: Any, status: str = "200 OK", *headers: str) -> bytes:
    """An answer that is a JSON document."""
    content = json.dumps(body).encode()
    return head(status, "content-type: application/json", *headers, length=len(content)) + content


def event(data: Any) -> bytes:
    return b"data: " + (json.dumps(data).encode() if not isinstance(data, bytes) else data) + b"\n\n"


def token(text: str | None, number: int, finish: str | None = None, **delta: Any) -> bytes:
    """A chat completion's chunk, as vLLM sends it with usage so far."""
    said = {"content": text, **delta} if text is not None else delta
    choice = {"index": 0, "delta": said, "finish_reason": finish}
    return _chunk([choice], number)


def _chunk(choices: list[Json], number: int) -> bytes:
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": number, "total_tokens": PROMPT_TOKENS + number}
    return event({"id": "x", "object": "chat.completion.chunk", "created": 1, "choices": choices, "usage": usage})


def sample(text: str) -> list[Piece]:
    """One that says `text` in three tokens."""
    return [STREAM, token(text, 1), token(" .", 2), token("", 3, "stop"), _chunk([], 3), event(b"[DONE]")]


@dataclass
class Scripted:
    """A running one. answers: for its paths, in turn, the last again and again; each a list of pieces.

    requests: path and body of each that came. open: requests whose connection is open still.
    """

    url: str
    answers: dict[str, list[Sequence[Piece]]] = field(default_factory=dict)
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    open: int = 0

    def says(self, *answers: Sequence[Piece], path: str = "/v1/chat/completions") -> None:
        self.answers[path] = list(answers)

    def sent(self, path: str = "/v1/chat/completions") -> list[Json]:
        return [json.loads(body) for asked, body in self.requests if asked == path]

    def next(self, path: str) -> Sequence[Piece]:
        left = self.answers.get(path) or [[whole({"error": {"message": "no such path", "code": 404}}, "404 Not Found")]]
        return left.pop(0) if len(left) > 1 else left[0]


@asynccontextmanager
async def scripted(folder: Path) -> AsyncIterator[Scripted]:
    """One in this loop, healthy, with a model whose config.json is in `folder`."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    upstream = Scripted("")
    card = {"id": MODEL, "object": "model", "root": str(folder), "max_model_len": CONTEXT}
    upstream.says([whole({})], path="/health")
    upstream.says([whole({"object": "list", "data": [card]})], path="/v1/models")
    upstream.says([whole({"count": PROMPT_TOKENS, "max_model_len": CONTEXT})], path="/tokenize")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        asked = await reader.readuntil(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(sum(lengths))
        path = asked.split(b" ", 2)[1].decode()
        upstream.requests.append((path, body))
        upstream.open += 1
        try:
            sent = b""
            for piece in upstream.next(path):
                if isinstance(piece, float | int):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(piece):
                            await reader.read(1)
                            return False  # nobody waits any more
                elif isinstance(piece, Break):
                    writer.transport.abort()
                    return False
                else:
                    sent = sent or piece
                    writer.write(piece)
                    await writer.drain()
            return b"content-length" in sent
        finally:
            upstream.open -= 1

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await server.wait_closed()
