"""A client of a server that has its own ideas, over a real socket."""

from collections.abc import AsyncIterator, Iterator

import pytest

from kinetics_serve.engine.upstream import EngineOverloaded, EngineUnavailable, Upstream, new_client
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@pytest.fixture
async def upstream(fake: FakeVllm) -> AsyncIterator[Upstream]:
    async with new_client("secret") as client:
        yield Upstream(fake.url, client)


async def generate(upstream: Upstream) -> int:
    """The chunks of a completion."""
    async with upstream.stream("/v1/chat/completions", CHAT) as chunks:
        return len([chunk async for chunk in chunks])


async def test_the_servers_key_is_sent_with_everything(fake: FakeVllm, upstream: Upstream) -> None:
    fake.api_key = "secret"
    assert await upstream.healthy()
    assert (await upstream.models())[0].name == MODEL
    assert await generate(upstream) == fake.tokens


async def test_a_key_that_a_server_does_not_take_is_no_fault_of_the_clients(fake: FakeVllm, upstream: Upstream) -> None:
    fake.api_key = "another"
    with pytest.raises(EngineUnavailable, match="KINETICS_UPSTREAM_API_KEY") as raised:
        await generate(upstream)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("headers", "wait"), [({"retry-after": "7"}, 7), ({}, None), ({"retry-after": "soon"}, None)])
async def test_a_server_with_too_much_to_do_says_when_to_come_back(
    fake: FakeVllm, upstream: Upstream, headers: dict[str, str], wait: int | None
) -> None:
    fake.status, fake.headers = 429, headers
    with pytest.raises(EngineOverloaded) as raised:
        await generate(upstream)
    assert raised.value.retry_after_s == wait
    assert upstream.outstanding == 0
