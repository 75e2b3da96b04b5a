"""What is said of servers that can't be reached."""

import logging

import pytest

from kinetics_serve.engine import pool as module
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Upstream
from tests.arms import PAPER_B200
from tests.e2e.conftest import free_port


async def test_a_server_that_cannot_be_reached_is_mentioned_at_once_and_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_client() as client:
        upstream = Upstream(f"http://127.0.0.1:{free_port()}", client)
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
        upstream = Upstream(f"http://127.0.0.1:{free_port()}", client)
        await Pool([upstream], PAPER_B200, embedded=True).check(upstream)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
