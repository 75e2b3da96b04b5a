"""A stand-in for a vLLM server: as fast as it is told to be, and with no model."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from tests import fake_apis

Json = dict[str, Any]

MODEL = "fake"
OTHER_MODEL = "fake-2"
CONTEXT = 4096
PROMPT_TOKENS = 20
VERSION = "0.32.0"

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}


SPARSE = {
    "min_kv_budget": "112", "min_context": "0", "selector": "low_rank", "page_size": "16", "summary_bytes": "54.72",
    "sparse_layers": "0-1", "dense_layers": "", "device": "cpu", "tensor_parallel": "1", "version": "1", "engine": "0",
}  # fmt: skip
"""What the plugin says beside its budget and its KV cache: with heads of 16, summaries of 1.71 vectors a page."""


@dataclass
class FakeVllm:
    """A running one. token_s: seconds per token; tokens: what a sample generates, up to its max_tokens.

    events: what a stream consists of, instead of a sample. requests: the bodies that it was sent, in order. aborted:
    requests whose client left. first_token_s: seconds before the first token. api_key: what it wants to be sent.
    status: what it answers instead of generating. breaks_after: tokens after which a stream's connection breaks.
    goes_on: from a message that is not complete.
    healthy: what its /health says, after health_s seconds. kv_budget: of the sparse attention that its /metrics tells
    of; None is dense.
    word: what a sample says over and over, by its seed. score: of a text, for the routes that score, and for judges.
    follows: whether a claim follows from a text, for judges of meaning. embedding: of a text.
    models: the names that it serves its model by. counted: tokens that every prompt has by its /tokenize.
    clients: the connections that it was sent requests on. generated: tokens of the last stream so far.
    goes_ahead: a token waits until this is true. streaming: the streams that have not ended.
    shut_down: ends it before its time.
    """

    url: str
    token_s: float = 0.0
    tokens: int = 8
    events: list[str] | None = None
    counted: int = PROMPT_TOKENS
    word: Callable[[int], str] = lambda seed: "word "
    score: Callable[[str], float] = lambda text: 1.0
    follows: Callable[[str, str], bool] = lambda given, claim: given == claim
    embedding: Callable[[str], list[float]] = lambda text: [1.0, 0.0]
    requests: list[Json] = field(default_factory=list)
    request_ids: list[str | None] = field(default_factory=list)
    aborted: int = 0
    first_token_s: float = 0.0
    api_key: str | None = None
    status: int = 200
    goes_on: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    breaks_after: int | None = None
    healthy: bool = True
    health_s: float = 0.0
    kv_budget: int | None = None
    kv_cache_dtype: str = "auto"
    models: tuple[str, ...] = (MODEL, OTHER_MODEL)
    clients: set[Any] = field(default_factory=set)
    generated: int = 0
    goes_ahead: Callable[[], bool] = lambda: True
    streaming: int = 0
    shut_down: Callable[[], None] = lambda: None

    def sent(self, path: str) -> list[Json]:
        return [body for body in self.requests if body["path"] == path]

    def restart(self) -> None:
        """As if it had just started, when the streams have ended that clients have left."""
        self.goes_ahead = lambda: True
        deadline = time.monotonic() + 60
        while self.streaming:
            assert time.monotonic() < deadline, "a stream goes on without an end"
            time.sleep(0.01)
        fresh = FakeVllm(self.url, shut_down=self.shut_down)
        for each in fields(FakeVllm):
            setattr(self, each.name, getattr(fresh, each.name))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Nothing that was sent here ends, or goes on, before this is left."""
        self.goes_ahead = lambda: False
        try:
            yield
        finally:
            self.goes_ahead = lambda: True

    async def next_token(self) -> None:
        await asyncio.sleep(self.token_s)
        async with asyncio.timeout(120):
            while not self.goes_ahead():
                await asyncio.sleep(0.01)


def metrics_of(fake: FakeVllm) -> str:
    """What a real engine's /metrics has of itself, sparse attention in both of the model's layers."""
    cache = f'block_size="128",cache_dtype="{fake.kv_cache_dtype}",enable_prefix_caching="True",engine="0"'
    lines = ["vllm:num_requests_running 0.0", f"vllm:cache_config_info{{{cache}}} 1.0"]
    if fake.kv_budget is not None:
        dtype = "bfloat16" if fake.kv_cache_dtype == "auto" else fake.kv_cache_dtype
        labels = SPARSE | {"kv_budget": str(fake.kv_budget), "kv_cache_dtype": dtype}
        said = ",".join(f'{name}="{value}"' for name, value in labels.items())
        lines.append(f"kinetics_sparse_attention_info{{{said}}} 1.0")
    return "\n".join([*lines, ""])


def app_of(fake: FakeVllm, model_folder: Path) -> FastAPI:
    async def authenticate(request: Request) -> None:
        fake.clients.add(request.client)
        if fake.api_key is not None and request.headers.get("authorization") != f"Bearer {fake.api_key}":
            raise HTTPException(401, "Unauthorized")

    async def note_name(request: Request) -> None:
        if request.method == "POST":
            fake.request_ids.append(request.headers.get("x-request-id"))

    app = FastAPI(dependencies=[Depends(authenticate), Depends(fake_apis.refuse_nonsense), Depends(note_name)])

    @app.exception_handler(LookupError)
    async def incomplete(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": {"message": f"missing: {error}", "code": 400}}, 400)

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": {"message": error.detail, "code": error.status_code}}, error.status_code)

    @app.get("/health")
    async def health() -> Response:
        await asyncio.sleep(fake.health_s)
        return Response(status_code=200 if fake.healthy else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(metrics_of(fake))

    @app.get("/v1/models")
    async def models() -> Json:
        card = {"object": "model", "root": str(model_folder), "max_model_len": CONTEXT}
        return {"object": "list", "data": [card | {"id": name} for name in fake.models]}

    @app.get("/version")
    async def version() -> Json:
        return {"version": VERSION}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Json:
        fake.requests.append({"path": "/tokenize", **await request.json()})
        return {"count": fake.counted, "max_model_len": CONTEXT}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await complete(request, "/v1/chat/completions")

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await complete(request, "/v1/completions")

    async def complete(request: Request, path: str) -> Response:
        body = await request.json()
        fake.requests.append({"path": path, **body})
        body["model"] = body.get("model") or MODEL
        if fake.status != 200:
            message = {"error": {"message": "as it was told", "code": fake.status}}
            return JSONResponse(message, fake.status, fake.headers)
        if body.get("continue_final_message") and not fake.goes_on:
            return JSONResponse({"error": {"message": "the chat template changes messages", "code": 400}}, 400)
        if (body.get("min_tokens") or 0) > int(body.get("max_tokens") or CONTEXT):
            return JSONResponse({"error": {"message": "min_tokens must be at most max_tokens", "code": 400}}, 400)
        if (body.get("temperature") or 0) > 2:
            return JSONResponse({"error": {"message": "temperature must be at most 2", "code": 400}}, 400)
        n = int(body.get("n") or 1)
        limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or CONTEXT - PROMPT_TOKENS)
        tokens = min(fake.tokens, limit)
        end = "stop" if tokens < limit else "length"
        chat = path.startswith("/v1/chat")
        if body.get("stream"):
            return StreamingResponse(stream(body, chat, n, tokens, end), media_type="text/event-stream")
        await asyncio.sleep(fake.first_token_s)
        for _ in range(tokens):
            await fake.next_token()
            if await request.is_disconnected():
                fake.aborted += 1
                break
        if "structured_outputs" in body:
            return JSONResponse(judged(body))
        text = fake.word(body.get("seed") or 0) * tokens
        content: Json = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choices = [{"index": index, "finish_reason": end, **content} for index in range(n)]
        return JSONResponse({"id": "x", "model": body["model"], "choices": choices, "usage": usage(n * tokens)})

    async def stream(body: Json, chat: bool, n: int, tokens: int, end: str) -> AsyncIterator[str]:
        if fake.events is not None:
            for line in fake.events:
                yield f"data: {line}\n\n"
            return
        options = body.get("stream_options") or {}
        counted = options.get("include_usage") and options.get("continuous_usage_stats")
        word = fake.word(body.get("seed") or 0)
        interval = body.get("stream_interval") or 1
        told = 0
        done = False
        fake.streaming += 1
        try:
            await asyncio.sleep(fake.first_token_s)
            for number in range(1, tokens + 1):
                if fake.breaks_after is not None and number > fake.breaks_after:
                    raise ConnectionError("as it was told")
                await fake.next_token()
                fake.generated = number
                if told and number - told < interval and number < tokens:
                    continue
                for index in range(n):
                    if chat and not told:
                        opening = {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
                        yield event(body, {"choices": [opening]} | ({"usage": usage(0)} if counted else {}))
                    choice = said(body, chat, word, number - told)
                    choice |= {"index": index, "finish_reason": end if number == tokens else None}
                    yield event(body, {"choices": [choice]} | ({"usage": usage(number)} if counted else {}))
                told = number
            if options.get("include_usage"):
                total = usage(n * tokens) | {"prompt_tokens_details": {"cached_tokens": 4}}
                yield event(body, {"choices": [], "usage": total})
            yield "data: [DONE]\n\n"
            done = True
        finally:
            fake.streaming -= 1
            fake.aborted += not done

    def said(body: Json, chat: bool, word: str, tokens: int) -> Json:
        """A choice of so many tokens, with log-probabilities where the request wants them."""
        content: Json = {"delta": {"content": word * tokens}} if chat else {"text": word * tokens}
        if not chat and body.get("logprobs") is not None:
            top = {f"{word}{each}": -0.1 - each for each in range(body["logprobs"])}
            lists = {"tokens": [word] * tokens, "token_logprobs": [-0.1] * tokens, "text_offset": [0] * tokens}
            return content | {"logprobs": lists | {"top_logprobs": [top] * tokens}}
        if chat and body.get("logprobs"):
            top_of_chat = [
                {"token": word, "logprob": -0.1 - each, "bytes": None} for each in range(body.get("top_logprobs") or 0)
            ]
            token = {"token": word, "logprob": -0.1, "bytes": None, "top_logprobs": top_of_chat}
            return content | {"logprobs": {"content": [token] * tokens}}
        return content

    def judged(body: Json) -> Json:
        if body["structured_outputs"]["choice"] == ["yes", "no"]:
            given, _, claim = body["messages"][0]["content"].partition("Answer A:\n")[2].partition("\n\nAnswer B:\n")
            said = "yes" if fake.follows(given, claim.partition("\n\n")[0]) else "no"
            return {"choices": [{"message": {"content": said}, "finish_reason": "length"}], "usage": usage(1)}
        grade = str(round(fake.score(body["messages"][0]["content"])))
        token = {"token": grade, "logprob": 0.0, "top_logprobs": [{"token": grade, "logprob": 0.0}]}
        choice = {"message": {"content": grade}, "logprobs": {"content": [token]}, "finish_reason": "length"}
        return {"choices": [choice], "usage": usage(1)}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Json:
        body = await request.json()
        fake.requests.append({"path": "/v1/embeddings", **body})
        if "input" not in body:
            raise LookupError("input")
        data = {"object": "embedding", "index": 0, "embedding": fake.embedding(body["input"])}
        return {"object": "list", "data": [data], "usage": {"prompt_tokens": 7, "total_tokens": 7}}

    @app.post("/classify")
    @app.post("/pooling")
    @app.post("/score")
    async def score(request: Request) -> Json:
        body = await request.json()
        path = request.url.path
        fake.requests.append({"path": path, **body})
        value = fake.score(body["documents"] if path == "/score" else body["messages"][-1]["content"])
        data = {"/classify": {"probs": [value]}, "/pooling": {"data": [[0.0], [value]]}, "/score": {"score": value}}
        return {"data": [data[path]], "usage": {"prompt_tokens": PROMPT_TOKENS + 5}}

    def event(body: Json, chunk: Json) -> str:
        kind = "chat.completion.chunk" if "messages" in body else "text_completion"
        data = {"id": "x", "object": kind, "created": 1, "model": body["model"], **chunk}
        return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"

    def usage(tokens: int) -> Json:
        return {
            "prompt_tokens": PROMPT_TOKENS,
            "total_tokens": PROMPT_TOKENS + tokens,
            "completion_tokens": tokens,
        }

    app.include_router(fake_apis.router(fake, PROMPT_TOKENS))
    return app


@contextmanager
def running_fake_vllm(folder: Path) -> Iterator[FakeVllm]:
    """One in a thread of this process, on a port of its own. folder: for the model's config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    fake = FakeVllm("")
    server = uvicorn.Server(uvicorn.Config(app_of(fake, folder), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the stand-in did not start"
        time.sleep(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def shut_down() -> None:
        server.should_exit = True
        thread.join(30)

    fake.shut_down = shut_down
    try:
        yield fake
    finally:
        shut_down()
