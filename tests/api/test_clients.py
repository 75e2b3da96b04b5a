"""The clients that people use, as they come: each with a budget and without, streaming and not."""

from typing import Any

import litellm
import pytest
from its_hub.api import ChatMessage
from its_hub.core.lms.openai_lm import OpenAICompatibleLanguageModel
from langchain_core.messages import AIMessageChunk
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

from tests.fake_vllm import MODEL, FakeVllm

KINETICS = {"budget": {"samples": 4}, "strategy": "best_of_n", "max_samples": 4}
QUESTION: list[Any] = [{"role": "user", "content": "hello"}]
ANSWER = "word " * 8

budgets = pytest.mark.parametrize("kinetics", [None, KINETICS], ids=["plain", "budgeted"])


def extra(kinetics: dict[str, Any] | None) -> dict[str, Any]:
    return {} if kinetics is None else {"extra_body": {"kinetics": kinetics}}


def check_samples(vllm: FakeVllm, kinetics: dict[str, Any] | None) -> None:
    """The budget reached the server, and only where there was one."""
    assert len(vllm.sent("/v1/chat/completions")) == (1 if kinetics is None else 4)


@budgets
def test_openai(url: str, vllm: FakeVllm, kinetics: dict[str, Any] | None) -> None:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        completion = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=50, **extra(kinetics))
        assert completion.choices[0].message.content == ANSWER
        assert ("kinetics" in (completion.model_extra or {})) == (kinetics is not None)
        check_samples(vllm, kinetics)
        with client.chat.completions.stream(model=MODEL, messages=QUESTION, max_tokens=50, **extra(kinetics)) as events:
            final = events.get_final_completion()
        assert final.choices[0].message.content == ANSWER
        assert final.choices[0].finish_reason == "stop"
        text = client.completions.create(model=MODEL, prompt="hello", max_tokens=50, **extra(kinetics))
        assert text.choices[0].text == ANSWER


@budgets
async def test_openai_async(url: str, vllm: FakeVllm, kinetics: dict[str, Any] | None) -> None:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            max_tokens=50,
            stream=True,
            stream_options={"include_usage": True},
            **extra(kinetics),
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    if kinetics is not None:
        details = chunks[-1].usage.completion_tokens_details
        assert details is not None
        assert (details.model_extra or {})["sampled_tokens"] == 32
    check_samples(vllm, kinetics)


@budgets
def test_litellm(url: str, vllm: FakeVllm, kinetics: dict[str, Any] | None) -> None:
    # With the prefix openai/ it takes any server for OpenAI's API; other arguments go into the body.
    ask: dict[str, Any] = {
        "model": f"openai/{MODEL}",
        "messages": QUESTION,
        "max_tokens": 50,
        "api_base": f"{url}/v1",
        "api_key": "none",
        **extra(kinetics),
    }
    answer = litellm.completion(**ask)
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage.completion_tokens == 8
    check_samples(vllm, kinetics)
    chunks = list(litellm.completion(**ask, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER


@budgets
@pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])
async def test_langchain(url: str, vllm: FakeVllm, kinetics: dict[str, Any] | None, responses: bool) -> None:
    model = ChatOpenAI(
        model=MODEL,
        base_url=f"{url}/v1",
        api_key="none",  # type: ignore[arg-type]
        max_completion_tokens=50,
        use_responses_api=responses,
        **extra(kinetics),
    )
    answer = model.invoke("hello")
    assert answer.text == ANSWER
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 8
    if kinetics is not None or not responses:
        check_samples(vllm, kinetics)
    whole = AIMessageChunk(content="")
    async for chunk in model.astream("hello"):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert whole.text == ANSWER


@budgets
async def test_its_hub(url: str, vllm: FakeVllm, kinetics: dict[str, Any] | None) -> None:
    """Its client has no place for other fields, so the budget comes in its header. It does not stream."""
    model = OpenAICompatibleLanguageModel(
        endpoint=f"{url}/v1", api_key="none", model_name=MODEL, max_completion_tokens=50
    )
    if kinetics is not None:
        model.headers["X-Kinetics-Budget"] = "1e12"
    async with model:
        message = await model.agenerate_single([ChatMessage(role="user", content="hello")])
    assert message["content"] == ANSWER
    assert (len(vllm.sent("/v1/chat/completions")) > 1) == (kinetics is not None)
