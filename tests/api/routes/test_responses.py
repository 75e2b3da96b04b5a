"""The Responses API through the openai SDK, with a budget and without."""

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.responses import Response

from tests.fake_vllm import MODEL, PROMPT_TOKENS, FakeVllm

VOTE = {"budget": {"samples": 4}, "strategy": "majority_vote", "answer": {"extractor": "last_line"}}
ASK: dict[str, Any] = {"model": MODEL, "input": "hello", "max_output_tokens": 50}
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3, "total_tokens": PROMPT_TOKENS + 3}


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def sample(delta: dict[str, Any], finish: str = "stop") -> list[str]:
    """The stream that the stand-in answers with: one chunk."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]


def bill(response: Response) -> dict[str, Any]:
    return dict((response.model_extra or {})["kinetics"])


def test_a_budgeted_response_has_the_winner_and_the_bill(client: OpenAI, vllm: FakeVllm) -> None:
    response = client.responses.create(**ASK, instructions="be brief", extra_body={"kinetics": VOTE})
    assert response.output_text == "word " * 8
    assert response.status == "completed"
    assert response.instructions == "be brief"
    assert 0 < bill(response)["spent_eflops"] <= bill(response)["budget_eflops"]
    samples = len(vllm.sent("/v1/chat/completions"))
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (PROMPT_TOKENS, 8)
    assert (response.usage.output_tokens_details.model_extra or {})["sampled_tokens"] == 8 * samples
    sent = vllm.sent("/v1/chat/completions")[0]
    assert sent["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert sent["max_tokens"] == 50


def test_effort_and_header_buy_a_response_too(client: OpenAI, vllm: FakeVllm) -> None:
    by_effort = client.responses.create(**ASK, reasoning={"effort": "low"})
    assert bill(by_effort)["samples_started"] >= 1
    by_header = client.responses.create(**ASK, extra_headers={"X-Kinetics-Budget": "1e12"})
    assert bill(by_header)["budget_eflops"] == 10**12


def test_a_budgeted_stream_has_openais_events_in_their_order(client: OpenAI, vllm: FakeVllm) -> None:
    vllm.token_s = 0.02
    events = list(client.responses.create(**ASK, stream=True, extra_body={"kinetics": VOTE}))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    answer = [kind for kind in kinds if kind != "response.in_progress"]
    assert answer == [
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    progress = [event.model_extra["kinetics"] for event in events if "kinetics" in (event.model_extra or {})]
    assert progress
    assert all(state["spent_eflops"] <= state["budget_eflops"] for state in progress)


def test_the_sdk_puts_a_stream_together_again(client: OpenAI, vllm: FakeVllm) -> None:
    with client.responses.stream(**ASK, extra_body={"kinetics": VOTE}) as stream:
        final = stream.get_final_response()
    assert final.output_text == "word " * 8
    assert bill(final)["stop_reason"] in ("consensus", "budget", "max_samples")


def test_a_sample_that_is_cut_off_makes_an_incomplete_response(client: OpenAI, vllm: FakeVllm) -> None:
    vllm.events = sample({"content": "never end"}, "length")
    response = client.responses.create(**ASK, extra_body={"kinetics": {"budget": {"samples": 1}}})
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_and_tool_calls_are_items_of_their_own(client: OpenAI, vllm: FakeVllm, stream: bool) -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    vllm.events = sample({"reasoning": "think", "tool_calls": [call]}, "tool_calls")
    tool = {"type": "function", "name": "add", "parameters": {"type": "object"}}
    more: dict[str, Any] = {"tools": [tool], "extra_body": {"kinetics": {"budget": {"samples": 1}}}}
    if stream:
        with client.responses.stream(**ASK, **more) as events:
            response: Response = events.get_final_response()
    else:
        response = client.responses.create(**ASK, **more)
    reasoning, called = response.output
    assert reasoning.type == "reasoning"
    assert called.type == "function_call"
    assert (called.call_id, called.name, called.arguments) == ("call_1", "add", '{"a": 1}')
    sent = vllm.sent("/v1/chat/completions")[0]
    assert sent["tools"] == [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def test_a_conversation_and_a_schema_reach_the_engine_as_chat(client: OpenAI, vllm: FakeVllm) -> None:
    schema = {"type": "json_schema", "name": "sum", "schema": {"type": "object"}, "strict": True}
    conversation: list[Any] = [
        {"role": "user", "content": [{"type": "input_text", "text": "add"}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
        {"type": "message", "role": "developer", "content": "now answer"},
    ]
    asked: dict[str, Any] = ASK | {"input": conversation, "text": {"format": schema}}
    client.responses.create(**asked, extra_body={"kinetics": {"budget": {"samples": 1}}})
    sent = vllm.sent("/v1/chat/completions")[0]
    called = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "add"}]},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c", "content": "3"},
        {"role": "developer", "content": "now answer"},
    ]
    named = {"name": "sum", "schema": {"type": "object"}, "strict": True}
    assert sent["response_format"] == {"type": "json_schema", "json_schema": named}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input.0.content.0"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"text": 7}, "text"),
        ({"max_output_tokens": "many"}, "max_completion_tokens"),
    ],
)
def test_what_no_chat_completion_can_do_is_refused(url: str, vllm: FakeVllm, more: dict[str, Any], param: str) -> None:
    response = httpx.post(f"{url}/v1/responses", json=ASK | {"kinetics": VOTE} | more)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert vllm.requests == []


def test_a_stream_that_fails_says_so_in_its_last_event(client: OpenAI, vllm: FakeVllm) -> None:
    vllm.token_s, vllm.breaks_after = 0.05, 2
    events = list(client.responses.create(**ASK, stream=True, extra_body={"kinetics": {"budget": {"samples": 1}}}))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.status == "failed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_request_is_the_engines_own(url: str, vllm: FakeVllm, stream: bool) -> None:
    content = json.dumps(ASK | {"stream": stream, "previous_response_id": None, "odd": 1.50}).encode()
    ours = httpx.post(f"{url}/v1/responses", content=content)
    theirs = httpx.post(f"{vllm.url}/v1/responses", content=content)
    assert ours.content == theirs.content
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert vllm.requests[0] == vllm.requests[1]


def test_a_filtered_answer_is_incomplete_because_of_the_filter(client: OpenAI, vllm: FakeVllm) -> None:
    vllm.events = sample({"content": "no"}, "content_filter")
    response = client.responses.create(**ASK, extra_body={"kinetics": {"budget": {"samples": 1}}})
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_and_a_call_without_an_id_stay_what_they_are(client: OpenAI, vllm: FakeVllm, stream: bool) -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    vllm.events = sample({"refusal": "I can't", "tool_calls": [call]}, "tool_calls")
    asked = {**ASK, "extra_body": {"kinetics": {"budget": {"samples": 1}}}}
    if stream:
        *events, last = client.responses.create(**asked, stream=True)
        assert [event.delta for event in events if event.type == "response.refusal.delta"] == ["I can't"]
        assert last.type == "response.completed"
        response = last.response
    else:
        response = client.responses.create(**asked)
    message, called = response.output
    assert message.type == "message"
    assert [part.refusal for part in message.content if part.type == "refusal"] == ["I can't"]
    assert called.type == "function_call"
    assert called.call_id
