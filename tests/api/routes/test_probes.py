"""What a load balancer is told."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.api.routes import probes
from kinetics_serve.engine import pool
from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import FakeVllm
from tests.scripted_upstream import scripted, whole
from tests.serving import serving


@dataclass
class FlakyLedger:
    """A ledger whose database answers, refuses, or says nothing."""

    state: str = "up"
    asked: int = field(default=0)

    async def owner(self, key: str) -> None:
        self.asked += 1
        if self.state == "down":
            raise LedgerUnavailable("as it was told")
        if self.state == "silent":
            await asyncio.sleep(60)

    async def close(self) -> None: ...


def app_with(ledger: FlakyLedger, vllm: FakeVllm, **settings: Any) -> Any:
    return create_app([vllm.url], PAPER_B200, settings=Settings(**settings), ledger=cast(Ledger, ledger))


async def test_ready_can_mind_the_ledger(vllm: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "LEDGER_WITHIN_S", 0.2)
    ledger = FlakyLedger()
    async with serving(app_with(ledger, vllm, ready_needs_ledger=True)) as client:
        for state, status in (("up", 200), ("down", 503), ("silent", 503), ("up", 200)):
            ledger.state = state
            assert (await client.get("/ready")).status_code == status


async def test_ready_leaves_the_ledger_alone_unless_it_is_told_to_mind_it(vllm: FakeVllm) -> None:
    ledger = FlakyLedger("down")
    async with serving(app_with(ledger, vllm)) as client:
        assert (await client.get("/ready")).status_code == 200
    assert ledger.asked == 0


async def said_at_once(upstream: str) -> dict[str, int]:
    """Statuses of the first answers of a server that has just started."""
    app = create_app([upstream], PAPER_B200)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics") as client,
    ):
        return {path: (await client.get(path)).status_code for path in ("/ready", "/health")}


async def test_a_server_answers_nobody_before_it_has_checked_its_engines(tmp_path: Path) -> None:
    async with scripted(tmp_path) as upstream:
        upstream.says([0.3, whole({})], path="/health")
        assert await said_at_once(upstream.url) == {"/ready": 200, "/health": 200}


async def test_an_engine_that_says_nothing_does_not_keep_a_server_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FIRST_CHECK_S", 0.1)
    async with scripted(tmp_path) as upstream:
        upstream.says([60.0], path="/health")
        assert await said_at_once(upstream.url) == {"/ready": 503, "/health": 200}
