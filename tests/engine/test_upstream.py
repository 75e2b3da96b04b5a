"""A client of a server that has its own ideas, over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.engine import upstream as module
from kinetics_serve.engine.circuit import FAILURES_TO_OPEN
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.errors import EngineLost, EngineOverloaded, EngineSilent, EngineUnavailable
from kinetics_serve.engine.upstream import Patience, Upstream
from kinetics_serve.errors import RETRY_AFTER_S
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.scripted_upstream import Break, Piece, Scripted, head, scripted, whole

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
PROMPT = {"model": MODEL, "prompt": "x"}
COUNTED: Sequence[Piece] = [whole({"count": 7})]
"""An answer after which the connection is kept for the next request."""


@pytest.fixture(scope="module")
def module_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@pytest.fixture
def fake(module_fake: FakeVllm) -> FakeVllm:
    module_fake.restart()
    return module_fake


@pytest.fixture
async def upstream(fake: FakeVllm) -> AsyncIterator[Upstream]:
    async with new_client() as client:
        yield Upstream(fake.url, client, api_key="secret")


@pytest.fixture
async def script(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as script:
        yield script


@pytest.fixture
async def odd(script: Scripted) -> AsyncIterator[Upstream]:
    """A server that answers as `script` says."""
    async with new_client() as client:
        yield Upstream(script.url, client)


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


@pytest.mark.parametrize(("first_token_s", "token_s", "tokens"), [(0.1, 600, 0), (600, 0.1, 1)])
async def test_a_server_that_falls_silent_is_given_up(
    fake: FakeVllm, upstream: Upstream, first_token_s: float, token_s: float, tokens: int
) -> None:
    upstream.patience = Patience(first_token_s, token_s)
    fake.goes_ahead = lambda: fake.generated < tokens
    seen: list[Any] = []
    with pytest.raises(EngineSilent, match=r"nothing for 0\.1 s"):
        await generate(upstream, seen)
    assert len(saying(seen)) == tokens
    assert upstream.outstanding == 0
    async with asyncio.timeout(30):
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


async def test_a_stream_that_breaks_is_one_failure_and_a_refused_connection_is_a_lost_server(tmp_path: Path) -> None:
    with running_fake_vllm(tmp_path) as mortal:
        async with new_client() as client:
            upstream = Upstream(mortal.url, client)
            mortal.breaks_after = 2
            with pytest.raises(EngineUnavailable):
                await generate(upstream, [])
            assert upstream.circuit.openings == 0
            mortal.shut_down()
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


async def test_a_request_meets_a_kept_connection_that_closes_and_goes_over_a_new_one_as_if_nothing_had_been(
    script: Scripted, odd: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = FAILURES_TO_OPEN + 1
    monkeypatch.setattr(module, "CLOSED_WITHIN_S", 600)
    script.says(*[COUNTED, [Break()], COUNTED] * rounds, path="/tokenize")
    for _ in range(2 * rounds):
        assert await odd.count_tokens(PROMPT) == 7
    assert len(script.sent("/tokenize")) == 3 * rounds
    assert odd.circuit.openings == 0  # though no model has answered meanwhile
    assert odd.outstanding == 0


@pytest.mark.parametrize(
    ("answers", "sent"),
    [
        ([[Break()], COUNTED], 1),  # the connection was new
        ([COUNTED, [Break()], [Break()], COUNTED], 3),  # it may be the request that breaks the server
        ([COUNTED, [0.3, Break()], COUNTED], 2),  # the server has worked on it
    ],
)
async def test_a_connection_that_breaks_for_another_reason_is_one_failure(
    script: Scripted, odd: Upstream, answers: list[Sequence[Piece]], sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSED_WITHIN_S", 0.1 if sent == 2 else 600)
    script.says(*answers, path="/tokenize")
    if answers[0] is COUNTED:
        await odd.count_tokens(PROMPT)
    with pytest.raises(EngineUnavailable, match="broke off") as raised:
        await odd.count_tokens(PROMPT)
    assert not isinstance(raised.value, EngineLost)
    assert len(script.sent("/tokenize")) == sent
    assert odd.circuit.openings == 0


UNREADABLE = {
    "a header too long": whole({}, "200 OK", f"content-security-policy: {'a' * 9000}"),
    "two lengths": whole({}, "200 OK", "content-length: 2"),
    "a length and chunks": whole({}, "200 OK", "transfer-encoding: chunked"),
    "a space in a header's name": whole({}, "200 OK", "x y: 1"),
    "more than its length": head("200 OK", length=2) + b"{}{}",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_an_answer_that_cannot_be_read_is_one_failure_and_no_lost_server(
    script: Scripted, odd: Upstream, kind: str
) -> None:
    script.says([UNREADABLE[kind]], path="/tokenize")
    with pytest.raises(EngineUnavailable, match="no HTTP that can be read") as raised:
        await odd.count_tokens(PROMPT)
    assert not isinstance(raised.value, EngineLost)
    assert len(script.sent("/tokenize")) == 1
    assert odd.circuit.openings == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_a_server_that_nobody_reaches_is_lost_at_once(host: str) -> None:
    async with new_client() as client:
        nobody = Upstream(f"http://{host}:9", client)
        with pytest.raises(EngineLost, match="no connection"):
            await nobody.count_tokens(PROMPT)
        assert nobody.circuit.openings == 1
