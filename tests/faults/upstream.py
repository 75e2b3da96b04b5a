"""A stand-in for vLLM in bytes: how it ends its lines, spaces its JSON and tells its usage is said by the fault."""

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from tests.fake_vllm import CONFIG, CONTEXT, MODEL, PROMPT_TOKENS

Json = dict[str, Any]
T = TypeVar("T")

ENDLESS = 10**6


@dataclass
class Upstream:
    """tokens: of each sample, at token_s seconds a token. end: of its lines. spaced: its JSON has spaces.

    usage: what it says instead of its usage; "right" is the truth. status: of its answers. open: what it works on.
    told: how many tokens each stream has told of. still: it is as if stopped: it accepts, and reads and writes nothing.
    drips: after its first token, a stream has a byte now and then. endless: streams go on beyond their max_tokens.
    unanswered: paths that it never answers.
    """

    url: str = ""
    folder: Path = Path()
    tokens: int = 40
    token_s: float = 0.1
    end: bytes = b"\n"
    spaced: bool = False
    usage: Any = "right"
    status: int = 200
    still: bool = False
    drips: bool = False
    endless: bool = False
    unanswered: frozenset[str] = frozenset()
    open: int = 0
    told: list[int] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)

    def well(self) -> None:
        """As it was in the beginning."""
        kept = ("url", "folder", "open", "told", "_loop", "_server", "_connections")
        for each in fields(self):
            if each.name not in kept:
                setattr(self, each.name, each.default)

    def listen(self) -> None:
        """From here on it takes connections, on the port that it had before if it had one."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        self._server = self._run(asyncio.start_server(self.serve, "127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def refuse(self) -> None:
        """It takes no further connections."""
        self._run(self._refuse())

    def kill(self) -> None:
        """It refuses connections, and those that there are break."""
        self._run(self._refuse(breaking=True))

    async def _refuse(self, breaking: bool = False) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._connections if breaking else ():
            writer.transport.abort()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def running(self) -> None:
        """Returns when it isn't stopped."""
        while self.still:
            await asyncio.sleep(0.02)

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
        while path in self.unanswered:
            await asyncio.sleep(60)
        if path in known:
            return self._whole(writer, 200, known[path])
        if not path.endswith("/completions"):
            return self._whole(writer, 404, {"error": {"message": "no such path", "code": 404}})
        if self.status != 200:
            return self._whole(writer, self.status, {"error": {"message": "as it was told", "code": self.status}})
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or CONTEXT - PROMPT_TOKENS
        tokens = min(self.tokens, limit)
        end = "stop" if tokens < limit else "length"
        if body.get("stream"):
            return await self._stream(writer, ENDLESS if self.endless else tokens, end)
        await asyncio.sleep(tokens * self.token_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "so 7"}, "finish_reason": end}
        self._whole(writer, 200, {"id": "x", "model": MODEL, "choices": [choice], "usage": self.said(tokens)})

    async def _stream(self, writer: asyncio.StreamWriter, tokens: int, end: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        mine = len(self.told)
        self.told.append(0)
        for number in range(1, tokens + 1):
            await asyncio.sleep(self.token_s)
            await self.running()
            while self.drips and number > 1:
                writer.write(b":")
                await writer.drain()
                await asyncio.sleep(0.5)
            reason = end if number == tokens else None
            choice = {"index": 0, "delta": {"content": "7" if reason else "so "}, "finish_reason": reason}
            self._event(writer, {"id": "x", "model": MODEL, "choices": [choice], "usage": self.said(number)})
            self.told[mine] = number
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
        self._connections.add(writer)
        try:
            await self.running()
            asked = await reader.readuntil(b"\r\n\r\n")
            lengths = [int(line[15:]) for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            content = await reader.readexactly(sum(lengths))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._connections.discard(writer)
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
            self._connections.discard(writer)
            writer.close()


@contextmanager
def running_upstream(folder: Path) -> Iterator[Upstream]:
    """One in a thread of this process. folder: for the model's config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    upstream = Upstream(folder=folder)
    loop = upstream._loop
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    upstream.listen()
    try:
        yield upstream
    finally:
        upstream.refuse()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
