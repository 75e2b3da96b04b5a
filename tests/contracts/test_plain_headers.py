"""Which headers of an upstream's answer a request without a budget gets, and how."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from kinetics_serve.api.app import create_app
from kinetics_serve.passthrough import passage
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL
from tests.scripted_upstream import Scripted, scripted
from tests.serving import metric, serving

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


def answer(*headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"content-length: 2", b"", b"{}"])


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        yield upstream


@pytest.fixture
def app(upstream: Scripted) -> FastAPI:
    return create_app([upstream.url], PAPER_B200, settings=Settings(cors_origins=("https://ours.example",)))


async def unloaded(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while await metric(client, "kinetics_load_ratio") or app.state.services.pool.upstreams[0].outstanding:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("value", ["Zürich".encode(), "Zürich".encode("latin-1"), "模型".encode()])
async def test_a_header_arrives_as_the_bytes_that_it_was(upstream: Scripted, app: FastAPI, value: bytes) -> None:
    upstream.says([answer(b"x-region: " + value)])
    async with serving(app, socket=True) as client:
        response = await client.post("/v1/chat/completions", json=CHAT)
        assert (response.status_code, response.content) == (200, b"{}")
        assert (b"x-region", value) in response.headers.raw
        await unloaded(app, client)


async def test_an_answer_that_can_not_be_passed_on_holds_nothing(
    upstream: Scripted, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(passage, "answered_headers", fails)
    upstream.says([answer()])
    async with serving(app, socket=True) as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 500
        await unloaded(app, client)


async def test_two_cookies_stay_two(upstream: Scripted, app: FastAPI) -> None:
    cookies = [b"a=1; Expires=Tue, 17 Nov 2026 10:00:00 GMT", b"b=2; Secure"]
    upstream.says([answer(*[b"Set-Cookie: " + cookie for cookie in cookies])])
    async with serving(app) as client:
        response = await client.post("/v1/chat/completions", json=CHAT)
    assert [value for name, value in response.headers.raw if name == b"set-cookie"] == cookies


async def test_what_belongs_to_the_upstreams_connection_stays_there(upstream: Scripted, app: FastAPI) -> None:
    own = ("upgrade", "trailer", "te", "proxy-authenticate", "proxy-connection", "keep-alive", "x-hop", "alt-svc")
    upstream.says([answer(b"Connection: keep-alive, X-Hop", b"x-kept: 1", *[f"{name}: x".encode() for name in own])])
    async with serving(app) as client:
        response = await client.post("/v1/chat/completions", json=CHAT)
    assert response.headers["x-kept"] == "1"
    assert not {"connection", *own} & set(response.headers)


async def test_an_upstream_opens_no_answer_to_web_pages(upstream: Scripted, app: FastAPI) -> None:
    upstream.says([answer(b"access-control-allow-origin: *", b"Access-Control-Allow-Credentials: true")])
    async with serving(app) as client:
        for origin, allowed in (("https://evil.example", None), ("https://ours.example", "https://ours.example")):
            response = await client.post("/v1/chat/completions", json=CHAT, headers={"origin": origin})
            assert response.headers.get("access-control-allow-origin") == allowed
            assert "access-control-allow-credentials" not in response.headers
