"""What is said of servers that can't be reached."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from kinetics_serve.engine import pool as module
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Upstream
from tests.arms import PAPER_B200
from tests.scripted_upstream import Piece, Scripted, head, scripted, whole

NOBODY = "http://127.0.0.1:9"
SILENT: list[Piece] = [600.0]


async def test_a_server_that_cannot_be_reached_is_mentioned_at_once_and_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_client() as client:
        upstream = Upstream(NOBODY, client)
        pool = Pool([upstream], PAPER_B200)
        await pool.check(upstream)
        await pool.check(upstream)
        (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
        assert line.startswith(f"{upstream.url} is down: Cannot connect to host")
        monkeypatch.setattr(module, "REMINDER_S", 0.0)
        await pool.check(upstream)
        assert caplog.text.count("is down") == 2


async def test_of_an_embedded_engine_its_supervisor_speaks(caplog: pytest.LogCaptureFixture) -> None:
    async with new_client() as client:
        upstream = Upstream(NOBODY, client)
        await Pool([upstream], PAPER_B200, embedded=True).check(upstream)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        yield upstream


@pytest.fixture
async def pool(upstream: Scripted) -> AsyncIterator[Pool]:
    async with new_client() as client:
        yield Pool([Upstream(upstream.url, client)], PAPER_B200)


def listed(folder: Path, *names: str) -> list[Piece]:
    card = {"object": "model", "root": str(folder), "max_model_len": 4096}
    return [whole({"object": "list", "data": [card | {"id": name} for name in names]})]


async def test_a_list_of_models_that_does_not_come_is_said_and_asked_for_again(
    upstream: Scripted, pool: Pool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.says(SILENT, listed(tmp_path, "a"), path="/v1/models")
    monkeypatch.setattr("kinetics_serve.engine.upstream.LISTING_TIMEOUT_S", 0.1)
    await pool.check(pool.upstreams[0])
    assert not pool.ready
    assert "/v1/models took longer than 0.1 s" in caplog.text
    monkeypatch.setattr("kinetics_serve.engine.upstream.LISTING_TIMEOUT_S", 600)
    await pool.check(pool.upstreams[0])
    assert [model.name for model in pool.models()] == ["a"]


async def test_a_model_that_a_healthy_server_gets_is_found_and_one_that_it_loses_is_not_served(
    upstream: Scripted, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_INTERVAL_S", 0.0)
    for names in (["a"], ["a", "lora"], ["lora"]):
        upstream.says(listed(tmp_path, *names), path="/v1/models")
        await pool.check(pool.upstreams[0])
        assert [model.name for model in pool.models()] == names


@pytest.mark.parametrize("answer", [SILENT, [whole({"data": 7})], [whole([])], [whole({"data": []})]])
async def test_a_healthy_server_whose_list_fails_once_goes_on(
    upstream: Scripted, pool: Pool, tmp_path: Path, answer: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LISTING_INTERVAL_S", 0.0)
    upstream.says(listed(tmp_path, "a"), answer, listed(tmp_path, "a", "b"), path="/v1/models")
    for names, timeout_s in ((["a"], 600), (["a"], 0.1), (["a", "b"], 600)):
        monkeypatch.setattr("kinetics_serve.engine.upstream.LISTING_TIMEOUT_S", timeout_s)
        await pool.check(pool.upstreams[0])
        assert [model.name for model in pool.models()] == names


async def test_a_server_that_is_up_may_leave_two_checks_unanswered(
    upstream: Scripted, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_up = []
    for silent in (False, True, True, False, True, True, True, False):
        upstream.says(SILENT if silent else [whole({})], path="/health")
        timeout = aiohttp.ClientTimeout(total=0.1 if silent else 600)
        monkeypatch.setattr("kinetics_serve.engine.upstream.HEALTH_TIMEOUT", timeout)
        await pool.check(pool.upstreams[0])
        was_up.append(pool.ready)
    assert was_up == [True, True, True, True, True, True, False, True]


async def test_a_server_that_is_silent_from_the_start_is_not_up(
    upstream: Scripted, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinetics_serve.engine.upstream.HEALTH_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    upstream.says(SILENT, path="/health")
    await pool.check(pool.upstreams[0])
    assert not pool.ready


async def test_what_starts_is_told_from_what_is_down(upstream: Scripted, tmp_path: Path) -> None:
    upstream.says([head("503 Service Unavailable")], [whole({})], [head("503 Service Unavailable")], path="/health")
    async with new_client() as client:
        pool = Pool([Upstream(upstream.url, client)], PAPER_B200, embedded=True)
        said = []
        for _ in range(3):
            await pool.check(pool.upstreams[0])
            said.append(pool.why_not_ready() if not pool.ready else "ready")
    assert said == ["the engine is starting", "ready", "no engine is up at the moment"]
