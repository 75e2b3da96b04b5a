"""Every field of OpenAI's requests reaches vLLM with each sample, and what vLLM makes of it reaches the client."""

import json
from typing import Any

import httpx
import pytest

from tests.fake_vllm import MODEL, PROMPT_TOKENS, FakeVllm

CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 7}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "developer", "content": [{"type": "text", "text": "use tools"}]},
    {"role": "user", "content": "add 7", "name": "ada"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    {"role": "user", "content": "again"},
]
FIELDS: dict[str, Any] = {
    "stop": ["\n\n", "END"],
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "logit_bias": {"7": -1},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
    "tool_choice": {"type": "function", "function": {"name": "add"}},
    "parallel_tool_calls": False,
    "reasoning_effort": "high",
    "user": "ada",
    "metadata": {"job": "nightly"},
    "chat_template_kwargs": {"enable_thinking": False},
}
KINETICS = {"budget": {"samples": 9}, "strategy": "best_of_n", "max_samples": 3}
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 3, "total_tokens": PROMPT_TOKENS + 3}


def ask(url: str, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 40, "seed": 7, **FIELDS, **more}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def test_each_sample_is_asked_what_the_client_asked(url: str, vllm: FakeVllm) -> None:
    ask(url, kinetics=KINETICS)
    samples = vllm.sent("/v1/chat/completions")
    assert sorted(sample["seed"] for sample in samples) == [7, 8, 9]
    for sample in samples:
        assert sample["messages"] == MESSAGES
        assert {field: sample[field] for field in FIELDS} == FIELDS
        assert sample["max_tokens"] == 40
        assert "kinetics" not in sample
        assert "max_completion_tokens" not in sample
    (counted,) = vllm.sent("/tokenize")
    assert (counted["messages"], counted["tools"]) == (MESSAGES, FIELDS["tools"])


def test_a_request_without_a_budget_may_have_several_completions(url: str, vllm: FakeVllm) -> None:
    answer = ask(url, n=3, reasoning_effort=None).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    (sent,) = vllm.sent("/v1/chat/completions")
    assert (sent["n"], sent["max_completion_tokens"]) == (3, 40)


def test_reasoning_effort_alone_buys_samples(url: str, vllm: FakeVllm) -> None:
    low, medium = (
        ask(url, reasoning_effort=effort).json()["kinetics"]["budget_eflops"] for effort in ("low", "medium")
    )
    assert medium == 4 * low
    assert "kinetics" not in ask(url, reasoning_effort="minimal").json()  # a word of the model's own


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_and_tool_calls_reach_the_client(url: str, vllm: FakeVllm, stream: bool) -> None:
    delta = {"reasoning": "think", "tool_calls": [{"index": 0, **CALL}]}
    choice = {"index": 0, "delta": delta, "finish_reason": "tool_calls", "stop_reason": None}
    vllm.events = [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]
    answer = ask(url, kinetics=KINETICS, stream=stream, stream_options={"include_usage": True} if stream else None)
    if stream:
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        chunks = [json.loads(line) for line in lines]
        assert chunks[-1]["usage"]["completion_tokens"] == 9
        message = next(choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["delta"])
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert message["tool_calls"] == [{"index": 0, **CALL}]
    else:
        message = answer.json()["choices"][0]["message"]
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
        assert message["tool_calls"] == [CALL]
    assert message["reasoning"] == message["reasoning_content"] == "think"


def test_a_budget_has_one_answer(url: str, vllm: FakeVllm) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "n": 2, "kinetics": KINETICS}
    refused = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    assert vllm.requests == []
