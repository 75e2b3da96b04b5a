"""What ends the stream of a request without a budget where the upstream does not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL
from tests.scripted_upstream import STREAM, Piece, Scripted, event, scripted, token
from tests.serving import serving

CHAT: dict[str, Any] = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
TEXT: dict[str, Any] = {"model": MODEL, "stream": True, "prompt": "hello"}


def words(count: int) -> list[Piece]:
    return [piece for number in range(1, count + 1) for piece in (token("word ", number), 0.001)]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        yield upstream


@pytest.fixture
async def client(upstream: Scripted) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app([upstream.url], PAPER_B200)) as client:
        yield client


async def idle(upstream: Scripted) -> None:
    async with asyncio.timeout(60):
        while upstream.open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        ("/v1/chat/completions", CHAT | {"max_tokens": 10}, 10),
        ("/v1/chat/completions", CHAT | {"max_tokens": 3000, "max_completion_tokens": 10}, 10),
        ("/v1/chat/completions", CHAT | {"max_tokens": 10, "n": 3}, 30),
        ("/v1/completions", TEXT, 16),
        ("/v1/completions", TEXT | {"prompt": ["one", "two"], "max_tokens": 10}, 20),
        ("/v1/completions", TEXT | {"prompt": [1, 2, 3], "max_tokens": 10}, 10),
    ],
)
async def test_a_stream_beyond_its_max_tokens_is_cut_and_says_so(
    upstream: Scripted, client: httpx.AsyncClient, path: str, body: dict[str, Any], most: int
) -> None:
    upstream.says([STREAM, *words(5000)], path=path)
    response = await client.post(path, json=body)
    assert most <= response.text.count("word ") <= most + 16 * max(1, most // 10)
    assert "max_tokens" in response.text
    assert "engine_unavailable" in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    await idle(upstream)


@pytest.mark.parametrize("n", [1, 2])
async def test_a_stream_as_long_as_it_may_be_passes_as_it_is(
    upstream: Scripted, client: httpx.AsyncClient, n: int
) -> None:
    said = [token("", 0)] * n + [token("word ", number) for number in range(1, 11) for _ in range(n)]
    said += [token("", 10, "length")] * n
    said += [event({"choices": [], "usage": {"completion_tokens": 10}}), event(b"[DONE]")]
    upstream.says([STREAM, *said])
    response = await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 10, "n": n})
    assert response.content == b"".join(said)


@pytest.mark.parametrize("fields", [{"n": 3}, {"n": 3.0}, {"n": "3"}, {"n": 1, "best_of": 3.0}, {"max_tokens": 90.0}])
async def test_numbers_allow_what_vllm_reads_in_them(
    upstream: Scripted, client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    said = [token("word ", number) for number in range(1, 91)] + [event(b"[DONE]")]
    upstream.says([STREAM, *said], path="/v1/completions")
    response = await client.post("/v1/completions", json=TEXT | {"max_tokens": 30} | fields)
    assert response.content == b"".join(said)


async def test_an_event_of_many_lines_of_data_is_one(upstream: Scripted, client: httpx.AsyncClient) -> None:
    said = [b'data: {\ndata:  "choices":\ndata:  []\ndata: }\n\n'] * 10 + [event(b"[DONE]")]
    upstream.says([STREAM, *said])
    assert (await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 10})).content == b"".join(said)


@pytest.mark.parametrize("fields", [{}, {"max_tokens": 4000}])
async def test_the_servers_deadline_ends_a_stream_that_goes_on(upstream: Scripted, fields: dict[str, Any]) -> None:
    upstream.says([STREAM, *[piece for word in words(4000) for piece in (word, 0.01)]])
    async with serving(create_app([upstream.url], PAPER_B200, settings=Settings(max_deadline_s=0.5))) as client:
        response = await client.post("/v1/chat/completions", json=CHAT | fields)
    assert "0.5 s, the server's deadline" in response.text
    assert "engine_timeout" in response.text
    assert response.text.endswith("data: [DONE]\n\n")
    await idle(upstream)
