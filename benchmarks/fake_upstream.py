"""A stand-in for a vLLM server that costs next to nothing: raw asyncio, its answers mostly written beforehand.

    python -m benchmarks.fake_upstream PORT FOLDER TOKENS TOKEN_MS

Each sample has TOKENS tokens, TOKEN_MS apart; with 0, all at once. An event has one token, or as many as the request's
`stream_interval` says. It says when it was sent: the `sent` of its object, in nanoseconds of the machine's monotonic
clock. Its `/metrics` says how many samples run. FOLDER has the model's config.json.
"""

import asyncio
import json
import random
import sys
import time
from functools import cache
from typing import Any

import uvloop

MODEL = "fake"
PROMPT_TOKENS = 20
CONTEXT = 8192
ANSWERS = ("56", "56", "56", "54", "63")


class Server:
    def __init__(self, folder: str, tokens: int, token_ms: float) -> None:
        self.tokens = tokens
        self.token_s = token_ms / 1000
        self.running = 0
        card = {"id": MODEL, "object": "model", "root": folder, "max_model_len": CONTEXT}
        self.models = _answer({"object": "list", "data": [card]})
        self.counted = _answer({"count": PROMPT_TOKENS, "max_model_len": CONTEXT})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
                )
                body = await reader.readexactly(length)
                path = head.split(b" ", 2)[1]
                if path == b"/v1/chat/completions":
                    self.running += 1
                    try:
                        await self._complete(json.loads(body), writer)
                    finally:
                        self.running -= 1
                elif path == b"/metrics":
                    writer.write(_text(b"vllm:num_requests_running %d\n" % self.running, b"text/plain"))
                else:
                    writer.write({b"/v1/models": self.models, b"/tokenize": self.counted}.get(path, _answer({})))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _complete(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        answer = random.choice(ANSWERS)
        if not body.get("stream"):
            await asyncio.sleep(self.token_s * self.tokens)
            writer.write(_whole(answer, self.tokens))
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        options = body.get("stream_options") or {}
        usage = bool(options.get("continuous_usage_stats"))
        top_logprobs = body.get("top_logprobs") if body.get("logprobs") else None
        begun = time.monotonic()
        for number, event in _events(answer, self.tokens, top_logprobs, usage, body.get("stream_interval") or 1):
            if self.token_s:
                due = begun + number * self.token_s
                await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(_chunk(event % time.monotonic_ns()))
            await writer.drain()
        if options.get("include_usage"):
            writer.write(_chunk(_total(self.tokens)))
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


@cache
def _whole(answer: str, tokens: int) -> bytes:
    text = "word " * (tokens - 1) + answer
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return _answer(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [choice],
            "usage": _usage(tokens),
        }
    )


@cache
def _events(
    answer: str, tokens: int, top_logprobs: int | None, usage: bool, interval: int
) -> tuple[tuple[int, bytes], ...]:
    """What a real server sends, `%d` where the time stands, each with the number of tokens so far."""
    events, told = [], 0
    for number in sorted({*range(1, tokens, interval), tokens}):
        last = number == tokens
        words = ["word "] * (number - told - last) + [answer] * last
        told = number
        choice: dict[str, Any] = {
            "index": 0,
            "delta": {"content": "".join(words)},
            "finish_reason": "stop" if last else None,
        }
        if top_logprobs:
            choice["logprobs"] = {"content": [_logprobs(word, top_logprobs) for word in words]}
        chunk: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        chunk |= {"choices": [choice], "sent": 0}
        if usage:
            chunk["usage"] = _usage(number)
        event = b"data: " + json.dumps(chunk).encode().replace(b'"sent": 0', b'"sent": %d') + b"\n\n"
        events.append((number, event))
    return tuple(events)


def _logprobs(word: str, top_logprobs: int) -> dict[str, Any]:
    top = [{"token": word, "logprob": -0.1 - each, "bytes": [119]} for each in range(top_logprobs)]
    return {"token": word, "logprob": -0.1, "bytes": [119], "top_logprobs": top}


@cache
def _total(tokens: int) -> bytes:
    """The event after the last token, for those who ask for it."""
    chunk: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return b"data: " + json.dumps(chunk | {"choices": [], "usage": _usage(tokens)}).encode() + b"\n\n"


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}


def _answer(body: dict[str, Any]) -> bytes:
    return _text(json.dumps(body).encode(), b"application/json")


def _text(content: bytes, kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(content), content)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def main() -> None:
    port, folder, tokens, token_ms = sys.argv[1:]
    server = Server(folder, int(tokens), float(token_ms))
    async with await asyncio.start_server(server.serve, "127.0.0.1", int(port), backlog=4096) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
