"""A request of OpenAI's Responses API as the chat completion that answers it."""

from typing import Any

from kinetics_serve.engine.upstream import Json
from kinetics_serve.requests.errors import invalid

_STORED = {
    "previous_response_id": "send the whole conversation in input",
    "conversation": "send the whole conversation in input",
    "background": "leave it out and wait for the answer, or stream it",
    "prompt": "write the prompt out in instructions and input",
}
"""Fields that would need responses or prompts to be stored, and what to do instead."""

_WITHOUT_EFFECT = (
    "store",
    "include",
    "metadata",
    "max_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "truncation",
)
_TRANSLATED = ("input", "instructions", "max_output_tokens", "reasoning", "text", "tools", "tool_choice")
_NOT_ITS_OWN = ("max_tokens", "max_completion_tokens", "reasoning_effort", "response_format", "logprobs")
"""Fields of chat completions, which mean nothing here."""

_TEXT_PARTS = ("input_text", "output_text", "text")


def effort_of(body: Json) -> Any:
    """The `reasoning.effort` of a request, None where it states none."""
    reasoning = body.get("reasoning")
    return reasoning.get("effort") if isinstance(reasoning, dict) else None


def chat_body(body: Json) -> Json:
    """The body of the chat completion. Raises ApiError for what there is no chat completion for.

    Fields that both APIs share, and vLLM's own, go through as they are.
    """
    for field, advice in _STORED.items():
        if body.get(field):
            raise invalid(f"{field} is not available, as no response is stored here: {advice}", field)
    if body.get("truncation") not in (None, "disabled"):
        raise invalid("truncation must be disabled: shorten the input yourself", "truncation")
    dropped = (*_STORED, *_WITHOUT_EFFECT, *_TRANSLATED, *_NOT_ITS_OWN)
    chat = {key: value for key, value in body.items() if key not in dropped}
    chat["messages"] = _messages(body)
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    effort = _object(body, "reasoning").get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    response_format = _response_format(_object(body, "text"))
    if response_format is not None:
        chat["response_format"] = response_format
    tools = _list(body.get("tools") or [], "tools")
    if tools:
        chat["tools"] = [_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]
    if body.get("tool_choice") is not None:
        chat["tool_choice"] = _tool_choice(body["tool_choice"])
    if "message.output_text.logprobs" in _list(body.get("include") or [], "include") or body.get("top_logprobs"):
        chat["logprobs"] = True
    return chat


def _messages(body: Json) -> list[Json]:
    messages: list[Json] = []
    if body.get("instructions") is not None:
        messages.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise invalid("input must be a text or a list of at least one item", "input")
    for index, item in enumerate(given):
        _add_item(messages, item, f"input.{index}")
    return messages


def _add_item(messages: list[Json], item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise invalid(f"{where} must be an object", where)
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, list):
            content = [_part(part, f"{where}.content.{number}") for number, part in enumerate(content)]
        messages.append({"role": item.get("role"), "content": content})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        messages[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        output = item.get("output")
        if isinstance(output, list):
            output = [_part(part, f"{where}.output.{number}") for number, part in enumerate(output)]
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
    elif kind != "reasoning":  # earlier reasoning is not shown to the model again
        raise invalid(
            f"{where} is of the type {kind!r:.100}; there are message, function_call, function_call_output and "
            "reasoning",
            f"{where}.type",
        )


def _part(part: Any, where: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    if kind == "input_image" and part.get("image_url") is not None:
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise invalid(f"{where} must be an input_text, output_text, refusal, or an input_image with image_url", where)


def _response_format(text: Json) -> Json | None:
    given = text.get("format")
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "json_object"}
    if kind == "json_schema":
        schema = {key: given[key] for key in ("name", "description", "schema", "strict") if key in given}
        return {"type": "json_schema", "json_schema": schema}
    raise invalid(f"text.format.type must be text, json_object or json_schema, given: {kind!r:.100}", "text.format")


def _tool(tool: Any, where: str) -> Json:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        raise invalid(f"{where} must be a function: the server runs no tools of its own", where)
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {key: tool[key] for key in names if tool.get(key) is not None}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise invalid("tool_choice must be auto, none, required or a function", "tool_choice")


def _object(body: Json, field: str) -> Json:
    value = body.get(field)
    if value is not None and not isinstance(value, dict):
        raise invalid(f"{field} must be an object, given: {value!r:.100}", field)
    return value or {}


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise invalid(f"{field} must be a list, given: {value!r:.100}", field)
    return value
