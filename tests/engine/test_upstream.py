"""A client of a server that has its own ideas, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.errors import EngineLost, EngineOverloaded, EngineSilent, EngineUnavailable
from kinetics_serve.engine.upstream import Patience, Upstream
from kinetics_serve.errors import RETRY_AFTER_S
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@pytest.fixture
async def upstream(fake: FakeVllm) -> AsyncIterator[Upstream]:
    async with new_client() as client:
        yield Upstream(fake.url, client, api_key="secret")


async def generate(upstream: Upstream, chunks: list[object]) -> None:
    """Adds the chunks of a completion."""
    async with upstream.stream("/v1/chat/completions", CHAT) as stream:
        async for arrived in stream:
            chunks += arrived


def saying(chunks: list[Any]) -> list[Any]:
    """Those with something in them, which the one that opens a chat with its role has not."""
    return [chunk for chunk in chunks if any(choice.delta.content for choice in chunk.choices)]


async def test_the_servers_key_is_sent_with_everything(fake: FakeVllm, upstream: Upstream) -> None:
    fake.api_key = "secret"
    await upstream.check_health()
    assert (await upstream.models())[0].name == MODEL
    chunks: list[Any] = []
    await generate(upstream, chunks)
    assert len(saying(chunks)) == fake.tokens


async def test_a_key_that_a_server_does_not_take_is_no_fault_of_the_clients(fake: FakeVllm, upstream: Upstream) -> None:
    fake.api_key = "another"
    with pytest.raises(EngineUnavailable, match="KINETICS_UPSTREAM_API_KEY") as raised:
        await generate(upstream, [])
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("headers", "wait"), [({"retry-after": "7"}, 7), ({}, RETRY_AFTER_S), ({"retry-after": "soon"}, RETRY_AFTER_S)]
)
async def test_a_server_with_too_much_to_do_says_when_to_come_back(
    fake: FakeVllm, upstream: Upstream, headers: dict[str, str], wait: int
) -> None:
    fake.status, fake.headers = 429, headers
    with pytest.raises(EngineOverloaded) as raised:
        await generate(upstream, [])
    assert raised.value.retry_after_s == wait
    assert upstream.outstanding == 0


@pytest.mark.parametrize(("first_token_s", "token_s", "tokens"), [(0.1, 5, 0), (5, 0.1, 1)])
async def test_a_server_that_falls_silent_is_given_up(
    fake: FakeVllm, upstream: Upstream, first_token_s: float, token_s: float, tokens: int
) -> None:
    fake.token_s = 0.4
    upstream.patience = Patience(first_token_s, token_s)
    seen: list[Any] = []
    with pytest.raises(EngineSilent, match=r"nothing for 0\.1 s"):
        await generate(upstream, seen)
    assert len(saying(seen)) == tokens
    assert upstream.outstanding == 0
    async with asyncio.timeout(5):
        while not fake.aborted:
            await asyncio.sleep(0.01)


async def test_what_came_before_a_failure_is_told(fake: FakeVllm, upstream: Upstream) -> None:
    fake.events = ['{"choices": [{"text": "1"}]}', '{"choices": [{"text": "2"}]}', '{"error": {"message": "broken"}}']
    chunks: list[Any] = []
    with pytest.raises(EngineUnavailable, match="broken"):
        await generate(upstream, chunks)
    assert [chunk.choices[0].text for chunk in chunks] == ["1", "2"]


@pytest.mark.parametrize("events", [['{"error": {"message": "out of memory"}}'], ["<html>"], ['{"choices": 7}']])
async def test_what_a_server_says_of_one_sample_leaves_its_circuit_closed(
    fake: FakeVllm, upstream: Upstream, events: list[str]
) -> None:
    fake.events = events
    for _ in range(10):
        with pytest.raises(EngineUnavailable):
            await generate(upstream, [])
    assert upstream.circuit.openings == 0


async def test_a_stream_that_breaks_is_one_failure_and_a_refused_connection_is_a_lost_server(
    fake: FakeVllm, upstream: Upstream
) -> None:
    fake.breaks_after = 2
    with pytest.raises(EngineUnavailable):
        await generate(upstream, [])
    assert upstream.circuit.openings == 0
    fake.shut_down()
    with pytest.raises(EngineLost):
        await generate(upstream, [])
    assert upstream.circuit.openings == 1


async def test_connections_are_used_again(fake: FakeVllm, upstream: Upstream) -> None:
    for _ in range(3):
        await generate(upstream, [])
    assert len(fake.clients) == 1


async def test_a_whole_answer_closes_the_circuit_too(upstream: Upstream) -> None:
    upstream.circuit.failed(0.0, lost=True)
    await upstream.count_tokens({"model": MODEL, "prompt": "x"})
    assert upstream.circuit.on_trial(10.0)  # no model was asked
    await upstream.post("/v1/chat/completions", CHAT | {"stream": False})
    assert not upstream.circuit.on_trial(10.0)
