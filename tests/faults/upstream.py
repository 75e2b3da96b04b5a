"""A stand-in for vLLM in bytes: how it ends its lines, spaces its JSON and tells its usage is said by the fault."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fake_vllm import CONFIG, CONTEXT, MODEL, PROMPT_TOKENS

Json = dict[str, Any]


@dataclass
class Upstream:
    """tokens: of each sample, at token_s seconds a token. end: of its lines. spaced: its JSON has spaces.

    usage: what it says instead of its usage; "right" is the truth. status: of its answers. open: what it works on.
    """

    url: str = ""
    folder: Path = Path()
    tokens: int = 40
    token_s: float = 0.1
    end: bytes = b"\n"
    spaced: bool = False
    usage: Any = "right"
    status: int = 200
    open: int = 0

    def well(self) -> None:
        """As it was in the beginning."""
        self.tokens, self.token_s, self.end, self.spaced, self.usage, self.status = 40, 0.1, b"\n", False, "right", 200

    def said(self, tokens: int) -> Any:
        if self.usage != "right":
            return self.usage
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}

    def dumped(self, value: Json) -> bytes:
        return json.dumps(value, separators=None if self.spaced else (",", ":")).encode()

    async def answer(self, path: str, body: Json, writer: asyncio.StreamWriter) -> None:
        card = {"id": MODEL, "object": "model", "root": str(self.folder), "max_model_len": CONTEXT}
        known: dict[str, Json] = {
            "/health": {},
            "/v1/models": {"object": "list", "data": [card]},
            "/tokenize": {"count": PROMPT_TOKENS, "max_model_len": CONTEXT},
        }
        if path in known:
            return self._whole(writer, 200, known[path])
        if not path.endswith("/completions"):
            return self._whole(writer, 404, {"error": {"message": "no such path", "code": 404}})
        if self.status != 200:
            return self._whole(writer, self.status, {"error": {"message": "as it was told", "code": self.status}})
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or CONTEXT - PROMPT_TOKENS
        tokens = min(self.tokens, limit)
        if body.get("stream"):
            return await self._stream(writer, tokens)
        await asyncio.sleep(tokens * self.token_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "so 7"}, "finish_reason": "stop"}
        self._whole(writer, 200, {"id": "x", "model": MODEL, "choices": [choice], "usage": self.said(tokens)})

    async def _stream(self, writer: asyncio.StreamWriter, tokens: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for number in range(1, tokens + 1):
            await asyncio.sleep(self.token_s)
            reason = "stop" if number == tokens else None
            choice = {"index": 0, "delta": {"content": "7" if reason else "so "}, "finish_reason": reason}
            self._event(writer, {"id": "x", "model": MODEL, "choices": [choice], "usage": self.said(number)})
            await writer.drain()
        self._event(writer, {"id": "x", "model": MODEL, "choices": [], "usage": self.said(tokens)})
        writer.write(b"data: [DONE]" + self.end * 2)
        await writer.drain()

    def _event(self, writer: asyncio.StreamWriter, chunk: Json) -> None:
        writer.write(b"data: " + self.dumped(chunk) + self.end * 2)

    def _whole(self, writer: asyncio.StreamWriter, status: int, body: Json) -> None:
        content = self.dumped(body)
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + content)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            lengths = [int(line[15:]) for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            content = await reader.readexactly(sum(lengths))
        except (asyncio.IncompleteReadError, ConnectionError):
            return writer.close()
        self.open += 1
        work = asyncio.create_task(
            self.answer(asked.split(b" ", 2)[1].decode(), json.loads(content) if content else {}, writer)
        )
        gone = asyncio.create_task(reader.read(1))  # nothing comes but the end of the connection
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.open -= 1
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            writer.close()


@contextmanager
def running_upstream(folder: Path) -> Iterator[Upstream]:
    """One in a thread of this process. folder: for the model's config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    upstream = Upstream(folder=folder)
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(upstream.serve, "127.0.0.1", 0)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
