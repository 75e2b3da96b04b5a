"""Budgeted and plain completions from a real vLLM, through the openai SDK."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.conftest import MODEL, Server

QUESTION = [{"role": "user", "content": "What is 7 times 8?"}]
VOTE = {"budget": {"samples": 4}, "strategy": "majority_vote", "answer": {"extractor": "number"}}


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "temperature": 0.7, "seed": 1, **more}


@pytest.fixture(scope="module")
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300)


def check_bill(bill: dict[str, Any]) -> None:
    assert 0 < bill["spent_eflops"] <= bill["budget_eflops"]
    parts = bill["compute_flops"] + bill["memory_bytes"] * bill["arithmetic_intensity"]
    assert parts <= bill["spent_eflops"] <= parts + bill["samples_started"] + 1
    assert bill["arithmetic_intensity"] == 562.5
    assert sum(vote["count"] for vote in bill["votes"]) <= bill["samples_finished"] <= bill["samples_started"]


def test_a_vote_under_a_budget_returns_the_winner_and_its_bill(client: OpenAI) -> None:
    completion = client.chat.completions.create(**body(), extra_body={"kinetics": {**VOTE, "include_samples": True}})
    bill = completion.model_extra["kinetics"]
    check_bill(bill)
    assert bill["strategy"] == "majority_vote"
    assert bill["stop_reason"] in ("consensus", "budget")
    samples = bill["samples"]
    assert completion.usage.completion_tokens in [sample["tokens"] for sample in samples]
    all_tokens = sum(sample["tokens"] for sample in samples)
    assert completion.usage.completion_tokens_details.model_extra["sampled_tokens"] == all_tokens
    assert completion.usage.prompt_tokens == 38
    texts = [sample["text"] for sample in samples if sample["answer"] == bill["answer"]]
    assert completion.choices[0].message.content in texts
    voters = [sample for sample in samples if sample["status"] == "finished" and sample["answer"] is not None]
    assert sum(vote["count"] for vote in bill["votes"]) == len(voters)


def test_the_prompt_is_prefilled_once_for_all_samples(client: OpenAI) -> None:
    long = [{"role": "user", "content": "Fresh words: " + "lorem ipsum dolor sit amet " * 40 + "What is 2 plus 2?"}]
    options = {"budget": {"samples": 4}, "strategy": "best_of_n", "max_samples": 4}
    completion = client.chat.completions.create(
        **body(messages=long, max_tokens=16, seed=5), extra_body={"kinetics": options}
    )
    bill = completion.model_extra["kinetics"]
    check_bill(bill)
    assert bill["samples_started"] == 4
    processed = bill["compute_flops"] / (2 * 134_515_008)  # tokens, if all were spent on parameters
    prompt, generated = completion.usage.prompt_tokens, bill["completion_tokens"]
    assert prompt > 200
    # vLLM caches whole blocks of 128 tokens, so each follower processes up to 128 again.
    assert prompt + generated <= processed < 1.2 * (prompt + 3 * 128 + generated) < 4 * prompt


def test_best_of_n_answers_with_the_most_confident_sample(client: OpenAI) -> None:
    kinetics = {"budget": {"samples": 3}, "strategy": "best_of_n", "max_samples": 3, "include_samples": True}
    completion = client.chat.completions.create(**body(max_tokens=40), extra_body={"kinetics": kinetics})
    bill = completion.model_extra["kinetics"]
    check_bill(bill)
    whole = [sample for sample in bill["samples"] if sample["status"] == "finished"] or bill["samples"]
    best = max(whole, key=lambda sample: sample["score"])
    assert completion.choices[0].message.content == best["text"]


async def test_a_stream_shows_progress_then_the_winner_then_usage(server: Server) -> None:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
        stream = await client.chat.completions.create(
            **body(), stream=True, stream_options={"include_usage": True}, extra_body={"kinetics": VOTE}
        )
        chunks = [chunk async for chunk in stream]
    progress = [chunk.model_extra["kinetics"] for chunk in chunks if "kinetics" in (chunk.model_extra or {})]
    check_bill(progress[-1])
    assert all("stop_reason" not in state for state in progress[:-1])
    assert progress[0]["budget_eflops"] == progress[-1]["budget_eflops"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip()
    assert chunks[-1].usage.completion_tokens > 0
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")


def test_plain_requests_pass_through_unchanged(server: Server) -> None:
    plain = body(temperature=0, max_tokens=24)
    for path, request in (
        ("/v1/chat/completions", plain),
        ("/v1/completions", {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}),
    ):
        ours = httpx.post(server.url + path, json=request, timeout=120)
        theirs = httpx.post(server.engine_url + path, json=request, timeout=120)
        assert ours.status_code == theirs.status_code == 200
        assert ours.json()["choices"] == theirs.json()["choices"]
        assert ours.json()["usage"]["completion_tokens"] == theirs.json()["usage"]["completion_tokens"]
        assert "kinetics" not in ours.json()


def test_plain_streams_pass_through_unchanged(server: Server) -> None:
    request = body(temperature=0, max_tokens=24, stream=True)

    def told(url: str) -> list[Any]:
        """What a stream says, however many tokens vLLM put into a chunk: a busy one says those of two steps at once."""
        lines = httpx.post(f"{url}/v1/chat/completions", json=request, timeout=120).text.splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        text = "".join(choice["delta"].pop("content", "") for choice in choices)
        rest = [choice for number, choice in enumerate(choices) if choice not in choices[:number]]
        return [text, rest, [list(chunk) for chunk in chunks[:1]], lines[-2:]]

    assert told(server.url) == told(server.engine_url)


def test_completions_take_a_budget_too(client: OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL,
        prompt="Question: What is 2 times 3?\nAnswer: ",
        max_tokens=16,
        seed=3,
        logprobs=1,
        extra_body={"kinetics": {"budget": {"samples": 3}, "answer": {"extractor": "number"}}},
    )
    assert completion.model_extra is not None
    check_bill(completion.model_extra["kinetics"])
    choice = completion.choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert choice.logprobs.top_logprobs is not None
    text = "".join(choice.logprobs.tokens).removesuffix("<|im_end|>")  # vLLM lists the end token, and hides its text
    assert text.strip() == choice.text.strip()
    assert all(len(candidates) == 1 for candidates in choice.logprobs.top_logprobs)


def test_log_probabilities_come_as_they_were_asked_for(client: OpenAI) -> None:
    kinetics = {"budget": {"samples": 1}}
    asked = client.chat.completions.create(
        **body(max_tokens=16, logprobs=True, top_logprobs=2), extra_body={"kinetics": kinetics}
    )
    content = asked.choices[0].logprobs.content
    assert len(content) == asked.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 for token in content)
    unasked = client.chat.completions.create(**body(max_tokens=16), extra_body={"kinetics": kinetics})
    assert unasked.choices[0].logprobs is None


def test_budgets_by_effort_header_and_tokens_are_budgets_too(server: Server, client: OpenAI) -> None:
    effort = client.chat.completions.create(**body(max_tokens=20), reasoning_effort="low")
    check_bill(effort.model_extra["kinetics"])
    header = client.chat.completions.create(**body(max_tokens=20), extra_headers={"X-Kinetics-Budget": "4e12"})
    assert header.model_extra["kinetics"]["budget_eflops"] == 4e12
    tokens = client.chat.completions.create(**body(), extra_body={"kinetics": {"budget": {"tokens": 30}}})
    assert tokens.model_extra["kinetics"]["samples_started"] == 1
    assert tokens.usage.completion_tokens <= 30


def test_the_plan_is_what_then_happens(server: Server) -> None:
    request = body(kinetics={"budget": {"samples": 5}})
    plan = httpx.post(f"{server.url}/v1/kinetics/plan", json=request, timeout=60).json()
    assert plan["strategy"] == "majority_vote"
    assert plan["full_length_samples"] == 5
    assert plan["budget_eflops"] == 5 * plan["sample_eflops"]
    done = httpx.post(f"{server.url}/v1/chat/completions", json=request, timeout=120).json()
    assert done["kinetics"]["strategy"] == plan["strategy"]
    assert done["kinetics"]["budget_eflops"] == plan["budget_eflops"]
    assert done["usage"]["prompt_tokens"] == plan["prompt_tokens"]
    minimum = httpx.post(f"{server.url}/v1/kinetics/plan", json=body(), timeout=60).json()["minimum_eflops"]
    assert minimum == plan["minimum_eflops"]


def test_the_minimum_that_is_named_suffices(server: Server) -> None:
    def ask(eflops: float) -> httpx.Response:
        request = body(kinetics={"budget": {"eflops": eflops}})
        return httpx.post(f"{server.url}/v1/chat/completions", json=request, timeout=120)

    refused = ask(1000)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "budget_too_small"
    minimum = int(refused.json()["error"]["message"].split("at least ")[1].split()[0])
    assert ask(minimum - 1).status_code == 400
    accepted = ask(minimum)
    assert accepted.status_code == 200
    assert accepted.json()["usage"]["completion_tokens"] <= 16


def test_a_deadline_returns_the_best_so_far(client: OpenAI) -> None:
    essay = [{"role": "user", "content": "Write a very long story about a ship."}]
    completion = client.chat.completions.create(
        **body(messages=essay, max_tokens=2000) | {"logit_bias": {"2": -100}},
        extra_body={"kinetics": {"budget": {"samples": 2}, "strategy": "best_of_n", "deadline_s": 3}},
    )
    bill = completion.model_extra["kinetics"]
    check_bill(bill)
    assert bill["stop_reason"] == "deadline"
    assert completion.choices[0].message.content.strip()


async def test_twenty_requests_at_once_stay_within_budget_and_are_booked_once(server: Server) -> None:
    before = server.metric("kinetics_eflops_total")
    requests_before = server.metric("kinetics_requests_total", outcome="completed")
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(
                    **body(messages=[{"role": "user", "content": f"What is {n} times 3?"}], max_tokens=40),
                    extra_body={"kinetics": {"budget": {"samples": 1 + n % 4}, "answer": {"extractor": "number"}}},
                )
                for n in range(20)
            )
        )
    bills = [answer.model_extra["kinetics"] for answer in answers]
    for bill in bills:
        check_bill(bill)
    booked = server.metric("kinetics_eflops_total") - before
    exact = sum(bill["compute_flops"] + bill["memory_bytes"] * 562.5 for bill in bills)
    assert booked == pytest.approx(exact, rel=1e-9)
    assert server.metric("kinetics_requests_total", outcome="completed") - requests_before == 20
    assert server.metric("kinetics_inflight_samples") == 0


def test_responses_take_a_budget(client: OpenAI) -> None:
    ask: dict[str, Any] = {"model": MODEL, "input": "What is 7 times 8?", "max_output_tokens": 40}
    response = client.responses.create(**ask, extra_body={"kinetics": VOTE, "seed": 1})
    bill = response.model_extra["kinetics"]
    check_bill(bill)
    assert response.output_text.strip()
    *_, last = client.responses.create(**ask, stream=True, extra_body={"kinetics": VOTE, "seed": 1})
    assert last.type == f"response.{last.response.status}"  # completed, or incomplete where the winner was cut off
    assert last.response.output_text.strip()


def test_models_are_listed_as_the_engine_lists_them(server: Server, client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
