"""Requests without a budget that vLLM takes, whatever their form."""

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.passthrough import passage
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL
from tests.scripted_upstream import Scripted, scripted, whole
from tests.serving import serving

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        upstream.says([whole({"choices": []})])
        yield upstream


@pytest.mark.parametrize("model", ["", None])
async def test_no_name_is_the_default_models(upstream: Scripted, model: str | None) -> None:
    async with serving(create_app([upstream.url], PAPER_B200)) as client:
        assert (await client.post("/v1/chat/completions", json=CHAT | {"model": model})).status_code == 200


async def test_a_byte_order_mark_is_passed_over(upstream: Scripted) -> None:
    async with serving(create_app([upstream.url], PAPER_B200)) as client:
        content = b"\xef\xbb\xbf" + json.dumps(CHAT).encode()
        assert (await client.post("/v1/chat/completions", content=content)).status_code == 200
    assert upstream.sent() == [CHAT]


async def test_what_nobody_expected_can_be_traced_and_read_by_web_pages(
    upstream: Scripted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(passage, "answered_headers", fails)
    caplog.set_level(logging.INFO)
    headers = {"origin": "https://ours.example", "x-request-id": "abc"}
    settings = Settings(cors_origins=("https://ours.example",))
    async with serving(create_app([upstream.url], PAPER_B200, settings=settings), socket=True) as client:
        response = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] == "abc"
    assert response.headers["access-control-allow-origin"] == "https://ours.example"
    (access,) = [
        each for each in caplog.records if each.name == "kinetics_serve.access" and "chat" in each.getMessage()
    ]
    assert " 500 " in access.getMessage()
    assert sum(1 for each in caplog.records if each.exc_info) == 1
