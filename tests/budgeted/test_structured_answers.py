"""Votes of samples that are JSON or tool calls."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, PROMPT_TOKENS, FakeVllm, running_fake_vllm

WAYS = ['{"city": "Rome", "degrees": 20}', '{"degrees": 20.0,\n "city": "Rome"}', '{"city": "rome", "degrees": 20}']
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 5, "total_tokens": PROMPT_TOKENS + 5}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.tokens = 1
        fake.word = lambda seed: WAYS[seed % 3]
        yield fake


@pytest.fixture
async def client(fake: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    fake.events = None
    app = create_app([fake.url], PAPER_B200)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=30) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


async def votes(client: httpx.AsyncClient, answer: dict[str, Any], **fields: Any) -> dict[str, int]:
    kinetics = {"budget": {"samples": 9}, "strategy": "self_consistency", "max_samples": 6, "answer": answer}
    messages = [{"role": "user", "content": "How warm is Rome?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 32, "seed": 0, "kinetics": kinetics, **fields}
    bill = (await client.post("/v1/chat/completions", json=body)).json()["kinetics"]
    return {vote["answer"]: vote["count"] for vote in bill["votes"]}


SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": {}}}}


async def test_structured_outputs_vote_by_what_they_say(client: httpx.AsyncClient) -> None:
    assert await votes(client, {}, **SCHEMA) == {
        '{"city":"Rome","degrees":20}': 4,
        '{"city":"rome","degrees":20}': 2,
    }


async def test_fields_that_are_ignored_do_not_split_the_vote(client: httpx.AsyncClient) -> None:
    assert await votes(client, {"ignored_fields": ["city"]}, **SCHEMA) == {'{"degrees":20}': 6}
    assert await votes(client, {"extractor": "json", "ignored_fields": ["city"]}) == {'{"degrees":20}': 6}


async def test_an_extractor_that_the_client_names_is_followed(client: httpx.AsyncClient) -> None:
    assert await votes(client, {"extractor": "json_pointer", "pattern": "/degrees"}, **SCHEMA) == {"20": 6}


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
async def test_tool_calls_vote(client: httpx.AsyncClient, fake: FakeVllm, reason: str) -> None:
    function = {"name": "weather", "arguments": '{"unit": "C", "city": "Rome"}'}
    call = {"index": 0, "id": "x", "type": "function", "function": function}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": reason}
    fake.events = [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]
    named = await votes(client, {"ignored_fields": ["unit"]})
    assert named == {'[{"arguments":{"city":"Rome"},"name":"weather"}]': 6}
