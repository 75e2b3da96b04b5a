"""A chat completion as the answer of OpenAI's Responses API: one object, or a stream of events."""

import uuid
from collections.abc import Iterator
from typing import Any

from kinetics_serve.engine.upstream import Json

_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": None,
    "top_p": None,
    "user": None,
}
"""Fields of the request that its response repeats, and what they are where the request leaves them out."""


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the finish reason of its chat completion."""


class ResponseOutput:
    """The response to the request `body`."""

    def __init__(self, body: Json, model: str, created: int) -> None:
        self._created: Json = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": created,
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,
            "truncation": "disabled",
            "usage": None,
            **{key: default if body.get(key) is None else body[key] for key, default in _ECHOED.items()},
        }
        self._sequence_number = -1

    def response(self, completion: Json) -> Json:
        """The whole response: `completion` is a chat completion with one choice."""
        choice = completion["choices"][0]
        missing = _INCOMPLETE.get(choice["finish_reason"])
        status = "incomplete" if missing else "completed"
        return self._created | {
            "status": status,
            "incomplete_details": {"reason": missing} if missing else None,
            "output": list(_items(choice, status)),
            "usage": _usage(completion["usage"]),
            "kinetics": completion["kinetics"],
        }

    def opening(self) -> list[Json]:
        """The events before anything has been generated."""
        return [
            self._event("response.created", response=self._created),
            self._event("response.in_progress", response=self._created),
        ]

    def progress(self, kinetics: Json) -> Json:
        """The same once more, with how far the samples are: clients that do not know `kinetics` see no change."""
        return self._event("response.in_progress", response=self._created | {"kinetics": kinetics}, kinetics=kinetics)

    def events(self, completion: Json) -> Iterator[Json]:
        """The events that bring the answer, to the last."""
        response = self.response(completion)
        for index, item in enumerate(response["output"]):
            yield from self._item_events(index, item)
        yield self._event(f"response.{response['status']}", response=response)

    def failed(self, error: Json) -> Json:
        """The event that ends a stream with an error, `error` being that of the envelope."""
        reported = {"code": "server_error", "message": error["message"]}
        return self._event("response.failed", response=self._created | {"status": "failed", "error": reported})

    def _item_events(self, index: int, item: Json) -> Iterator[Json]:
        place = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "function_call":
            begun = item | {"arguments": "", "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=index, item=begun)
            yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield self._event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
            )
        else:
            begun = item | {"content": [], "status": "in_progress"}
            yield self._event("response.output_item.added", output_index=index, item=begun)
            for number, part in enumerate(item["content"]):
                yield from self._part_events(place | {"content_index": number}, part)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _part_events(self, place: Json, part: Json) -> Iterator[Json]:
        kind = part["type"]
        field = "refusal" if kind == "refusal" else "text"
        text = part[field]
        logprobs = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
        empty = part | {field: ""} | ({"logprobs": []} if logprobs else {})
        yield self._event("response.content_part.added", **place, part=empty)
        if text:
            yield self._event(f"response.{kind}.delta", **place, delta=text, **logprobs)
        yield self._event(f"response.{kind}.done", **place, **{field: text}, **logprobs)
        yield self._event("response.content_part.done", **place, part=part)

    def _event(self, kind: str, **fields: Any) -> Json:
        self._sequence_number += 1
        return {"type": kind, "sequence_number": self._sequence_number, **fields}


def _items(choice: Json, status: str) -> Iterator[Json]:
    """The output items of a choice: its reasoning, its text, its tool calls."""
    message = choice["message"]
    if message.get("reasoning"):
        content = [{"type": "reasoning_text", "text": message["reasoning"]}]
        yield {"id": _id("rs"), "type": "reasoning", "summary": [], "content": content, "status": status}
    calls = message.get("tool_calls") or []
    parts: list[Json] = []
    if message.get("content") or not (calls or message.get("refusal")):
        logprobs = (choice.get("logprobs") or {}).get("content") or []
        text = message.get("content") or ""
        parts.append({"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs})
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    if parts:
        yield {"id": _id("msg"), "type": "message", "role": "assistant", "content": parts, "status": status}
    for call in calls:
        function = call["function"]
        called = {"name": function["name"], "arguments": function["arguments"]}
        yield {
            "id": _id("fc"),
            "type": "function_call",
            "call_id": call.get("id") or _id("call"),
            **called,
            "status": status,
        }


def _usage(usage: Json) -> Json:
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": usage["completion_tokens"],
        # vLLM does not count reasoning apart.
        "output_tokens_details": {"reasoning_tokens": 0, **(usage.get("completion_tokens_details") or {})},
        "total_tokens": usage["total_tokens"],
    }


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
