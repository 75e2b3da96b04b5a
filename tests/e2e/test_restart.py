"""An engine that dies under its requests."""

import asyncio
import os
import signal

import httpx
import pytest

from tests.e2e.conftest import LONG, Server, until

BACK_WITHIN_S = 600  # a start takes a minute on two cores, and these machines differ


@pytest.mark.parametrize("victim", ["api_server", "EngineCore"])
async def test_an_engine_that_is_killed_costs_one_request_and_comes_back(server: Server, victim: str) -> None:
    failed = server.metric("kinetics_requests_total", outcome="failed")
    before = server.metric("kinetics_eflops_total")
    samples = server.metric("kinetics_samples_total")
    async with httpx.AsyncClient(timeout=300) as client:
        request = asyncio.create_task(client.post(f"{server.url}/v1/chat/completions", json=LONG))
        await until(lambda: server.engine_running() == 4, 60)
        killed = [
            pid for pid, command in server.engine_processes().items() if victim in command and "guardian" not in command
        ]
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        response = await request
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "engine_unavailable"
        assert int(response.headers["retry-after"]) > 0
        await until(lambda: httpx.get(f"{server.url}/ready").status_code == 503, 30)  # the next check sees it
        refused = await client.post(f"{server.url}/v1/chat/completions", json=LONG)
        assert refused.status_code == 503
        assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.metric("kinetics_requests_total", outcome="failed") - failed == 1
    assert server.metric("kinetics_samples_total") - samples == 4
    booked = server.metric("kinetics_eflops_total") - before
    assert booked > 0
    assert await asyncio.to_thread(server.wait_until_ready, BACK_WITHIN_S) < BACK_WITHIN_S
    assert server.metric("kinetics_eflops_total") - before == booked  # nothing was booked twice
    again = LONG | {"max_tokens": 8}
    async with httpx.AsyncClient(timeout=300) as client:
        answer = (await client.post(f"{server.url}/v1/chat/completions", json=again)).json()
    assert answer["kinetics"]["spent_eflops"] <= answer["kinetics"]["budget_eflops"]
