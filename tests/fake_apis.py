"""What else the stand-in for vLLM serves: responses, messages, and an echo of everything that it has no route for."""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from kinetics_serve.requests.fields import as_read_by_vllm

if TYPE_CHECKING:
    from tests.fake_vllm import FakeVllm

Json = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "stream": bool,
    "n": int,
    "max_tokens": int,
    "max_completion_tokens": int,
    "max_output_tokens": int,
    "stream_options": dict,
    "temperature": (int, float),
    "seed": int,
    "messages": list,
    "tools": list,
}


async def refuse_nonsense(request: Request) -> None:
    """As a real server would: 400 for fields of the wrong type."""
    if request.method != "POST" or not request.headers.get("content-type", "").startswith("application/json"):
        return
    body = json.loads(await request.body())
    for field, kind in _TYPES.items():
        value = body.get(field)
        right = as_read_by_vllm(value) is not None if kind is int else isinstance(value, kind)
        if value is not None and not right:
            raise HTTPException(400, f"{field} must be a {kind}")
    if not 1 <= int(1 if body.get("n") is None else body["n"]) <= 128:
        raise HTTPException(400, "n must be from 1 to 128")


def router(fake: "FakeVllm", prompt_tokens: int) -> APIRouter:
    apis = APIRouter()

    @apis.post("/v1/responses")
    async def responses(request: Request) -> Response:
        body = await request.json()
        fake.requests.append({"path": "/v1/responses", **body})
        tokens = min(fake.tokens, int(body.get("max_output_tokens") or fake.tokens))
        text = "word " * tokens
        part = {"type": "output_text", "text": text, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [part], "status": "completed"}
        usage: Json = {"input_tokens": prompt_tokens, "output_tokens": tokens, "total_tokens": prompt_tokens + tokens}
        usage |= {"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 0}}
        begun = {
            "id": "resp_1",
            "object": "response",
            "model": body.get("model"),
            "status": "in_progress",
            "output": [],
        }
        begun |= {"model": body.get("model"), "tools": body.get("tools", []), "usage": None}
        response = begun | {"status": "completed", "output": [item], "usage": usage}
        if not body.get("stream"):
            return JSONResponse(response)
        place = {"output_index": 0, "item_id": "msg_1"}
        words = [{"type": "response.output_text.delta", **place, "content_index": 0, "delta": "word "}] * tokens
        events: list[Json] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
            {"type": "response.content_part.added", **place, "content_index": 0, "part": part | {"text": ""}},
            *words,
            {"type": "response.completed", "response": response},
        ]
        return stream([event | {"sequence_number": number} for number, event in enumerate(events)])

    @apis.post("/v1/messages/count_tokens")
    async def count_tokens(request: Request) -> Json:
        fake.requests.append({"path": "/v1/messages/count_tokens", **await request.json()})
        return {"input_tokens": prompt_tokens}

    @apis.post("/v1/messages")
    async def messages(request: Request) -> Response:
        body = await request.json()
        fake.requests.append({"path": "/v1/messages", **body})
        tokens = min(fake.tokens, int(body["max_tokens"]))
        usage = {"input_tokens": prompt_tokens - 4, "output_tokens": tokens, "cache_read_input_tokens": 4}
        begun = {"id": "x", "type": "message", "role": "assistant", "content": [], "model": body.get("model")}
        if not body.get("stream"):
            content = [{"type": "text", "text": "word " * tokens}]
            return JSONResponse(begun | {"content": content, "stop_reason": "end_turn", "usage": usage})
        empty = {"input_tokens": prompt_tokens, "output_tokens": 0}
        word = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
        return stream(
            [
                {"type": "message_start", "message": begun | {"usage": empty}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                *[word] * tokens,
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage},
                {"type": "message_stop"},
            ]
        )

    def stream(events: list[Json]) -> Response:
        async def pieces() -> AsyncIterator[str]:
            for fake.generated, event in enumerate(events, 1):
                await fake.next_token()
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    @apis.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def echo(request: Request, path: str) -> Response:
        """Says what came, so that a test can compare."""
        content = await request.body()
        fake.requests.append({"path": f"/{path}", "content": content})
        return Response(content, headers={"x-echo": path}, media_type=request.headers.get("content-type"))

    return apis
