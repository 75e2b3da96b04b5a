"""Every field of OpenAI's requests reaches vLLM with each sample, and what vLLM makes of it reaches the client."""

import json
from typing import Any

import httpx
import pytest

from kinetics_serve.observability.numbers import for_people
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
    efforts = ("minimal", "low", "medium", "high", "xhigh", "max")
    bills = {effort: ask(url, reasoning_effort=effort).json()["kinetics"] for effort in efforts}
    low = bills["low"]["budget_eflops"]
    assert [bill["budget_eflops"] / low for bill in bills.values()] == pytest.approx([0.5, 1, 4, 16, 32, 64], rel=0.01)
    assert "kinetics" not in ask(url, reasoning_effort="none").json()


def test_no_effort_is_too_small_for_a_prompt(url: str) -> None:
    assert ask(url, reasoning_effort="minimal", max_completion_tokens=16).json()["kinetics"]["samples_started"] == 1
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 16, "kinetics": {"budget": {"samples": 0.5}}}
    stated = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert stated.json()["error"]["code"] == "budget_too_small"


@pytest.mark.parametrize("number", ["1_0e10", "1e10, 1e10", "0x10", "inf", "nan", "-1", "", "1e31", "१"])
def test_a_budget_header_is_a_plain_decimal_number(url: str, number: str) -> None:
    body = {"model": MODEL, "messages": MESSAGES}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=[(b"X-Kinetics-Budget", number.encode())])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Kinetics-Budget"


def test_two_budget_headers_are_an_error_even_if_they_agree(url: str) -> None:
    body = {"model": MODEL, "messages": MESSAGES}
    headers = [("X-Kinetics-Budget", "1e12"), ("X-Kinetics-Budget", "1e12")]
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 400
    assert "2 times" in answer.json()["error"]["message"]


@pytest.mark.parametrize("field", [{"ignore_eos": True}, {"min_tokens": 40}])
def test_the_bill_says_that_samples_which_cannot_end_have_no_votes(
    url: str, vllm: FakeVllm, field: dict[str, Any]
) -> None:
    (note,) = ask(url, kinetics=KINETICS, **field).json()["kinetics"]["notes"]
    assert next(iter(field)) in note
    assert "none has a vote" in note
    assert ask(url, kinetics=KINETICS).json()["kinetics"]["notes"] == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"kinetics": {"budget": {"samples": 2}}}, "a vote needs 3 of max_tokens (40)"),
        ({"kinetics": {"budget": {"samples": 8}, "max_samples": 2}}, "max_samples is 2"),
        ({"kinetics": {"budget": {"samples": 8}}, "temperature": 0}, "temperature 0"),
    ],
)
def test_the_bill_and_the_plan_say_why_auto_runs_one_sample(url: str, more: dict[str, Any], reason: str) -> None:
    bill = ask(url, **more).json()["kinetics"]
    assert bill["strategy"] == "single"
    assert reason in bill["notes"][0]
    body = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 40, **more}
    assert httpx.post(f"{url}/v1/kinetics/plan", json=body).json()["notes"] == bill["notes"]


def test_the_bill_counts_what_was_cut_off_and_rounds_for_people(url: str, vllm: FakeVllm) -> None:
    vllm.tokens = 3
    choice = {"index": 0, "delta": {"content": "on and"}, "finish_reason": "length"}
    vllm.events = [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]
    bill = ask(url, kinetics=KINETICS).json()["kinetics"]
    assert bill["samples_truncated"] == bill["samples_finished"] == bill["samples_started"]
    assert bill["rounded"]["spent_eflops"] == for_people(bill["spent_eflops"])
    assert set(bill["rounded"]) == {"budget_eflops", "spent_eflops", "compute_flops", "memory_bytes"}


def test_a_message_has_what_openais_have(url: str) -> None:
    answer = ask(url, kinetics=KINETICS).json()
    message = answer["choices"][0]["message"]
    assert (message["refusal"], message["annotations"]) == (None, [])
    assert answer["system_fingerprint"].startswith("kinetics-serve-")
    assert answer["service_tier"] == "default"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_and_tool_calls_reach_the_client(url: str, vllm: FakeVllm, stream: bool) -> None:
    delta = {"reasoning": "think", "tool_calls": [{"index": 0, **CALL}]}
    choice = {"index": 0, "delta": delta, "finish_reason": "tool_calls", "stop_reason": None}
    vllm.events = [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]
    answer = ask(url, kinetics=KINETICS, stream=stream, stream_options={"include_usage": True} if stream else None)
    if stream:
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        chunks = [json.loads(line) for line in lines]
        usage = chunks[-1]["usage"]
        assert (usage["completion_tokens"], usage["completion_tokens_details"]["sampled_tokens"]) == (3, 9)
        message = next(choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["delta"])
        assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert message["tool_calls"] == [{"index": 0, **CALL}]
    else:
        message = answer.json()["choices"][0]["message"]
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
        assert message["tool_calls"] == [CALL]
    assert message["reasoning"] == message["reasoning_content"] == "think"


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_that_is_not_wanted_is_counted_and_not_shown(url: str, vllm: FakeVllm, stream: bool) -> None:
    """Where a client leaves it out, vLLM itself tells of no token while a model thinks."""
    alternatives = [{"token": "secret", "logprob": -0.1}]
    thought = {"content": [{"token": "secret", "logprob": -0.1, "top_logprobs": alternatives}]}
    choices = [
        {"index": 0, "delta": {"reasoning": "a secret"}, "logprobs": thought, "finish_reason": None},
        {"index": 0, "delta": {"content": "56"}, "finish_reason": "stop"},
    ]
    vllm.events = [*[json.dumps({"choices": [choice], "usage": USAGE}) for choice in choices], "[DONE]"]
    more = {"logprobs": True, "top_logprobs": 1, "tools": None, "kinetics": KINETICS | {"include_samples": True}}
    answer = ask(url, include_reasoning=False, stream=stream, **more)
    assert "56" in answer.text
    assert "secret" not in answer.text
    assert "reasoning" not in answer.text
    for sent in vllm.sent("/v1/chat/completions"):
        assert "include_reasoning" not in sent
    assert "a secret" in ask(url, include_reasoning=True, stream=stream, **more).text


def test_a_budget_has_one_answer(url: str, vllm: FakeVllm) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "n": 2, "kinetics": KINETICS}
    refused = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
    assert vllm.requests == []
