"""What SIGTERM does to requests, at a real process in front of a stand-in for vLLM."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import until
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.ledger.server import FrontEnd, bearer, front_end

CHAT = "/v1/chat/completions"
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4000}
VOTE = {"budget": {"samples": 3}, "strategy": "best_of_n", "max_samples": 3, "include_samples": True}


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeVllm]:
    with running_fake_vllm(folder) as fake:
        yield fake


@asynccontextmanager
async def asked(server: FrontEnd, *bodies: dict[str, Any], key: str | None = None) -> AsyncIterator[list[Any]]:
    """Requests that are with the engine."""
    async with httpx.AsyncClient(timeout=60, base_url=server.url, headers=bearer(key)) as client:
        tasks = [asyncio.create_task(client.post(CHAT, json=body)) for body in bodies]
        await until_sent(server.fake, len(bodies))
        yield tasks


async def until_sent(fake: FakeVllm, count: int) -> None:
    await until(lambda: len(fake.sent(CHAT)) >= count, 60)


async def until_stopping(server: FrontEnd) -> None:
    await until(lambda: httpx.get(f"{server.url}/ready").status_code == 503, 60)


def running_samples(server: FrontEnd) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("kinetics_inflight_samples{"))


def events(response: httpx.Response) -> list[str]:
    return [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]


async def test_what_runs_finishes_and_what_comes_is_turned_away(fake: FakeVllm, folder: Path, tmp_path: Path) -> None:
    kinds = [PLAIN, PLAIN | {"stream": True}, PLAIN | {"kinetics": VOTE}]
    with front_end(fake, None, folder, tmp_path / "log") as server:
        with fake.holding():
            async with asked(server, *kinds) as tasks, httpx.AsyncClient(base_url=server.url) as client:
                server.process.send_signal(signal.SIGTERM)
                await until_stopping(server)
                assert (await client.get("/health")).status_code == 200
                refused = await client.post(CHAT, json=PLAIN)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
                assert "stopping" in refused.json()["error"]["message"]
                assert int(refused.headers["retry-after"]) > 0
                fake.goes_ahead = lambda: True
                responses = await asyncio.gather(*tasks)
        assert [response.status_code for response in responses] == [200, 200, 200]
        assert responses[1].text.endswith("data: [DONE]\n\n")
        assert {sample["status"] for sample in responses[2].json()["kinetics"]["samples"]} == {"finished"}
        assert await asyncio.to_thread(server.process.wait, 60) == 0


async def test_what_does_not_finish_in_time_is_told_and_settled(fake: FakeVllm, folder: Path, tmp_path: Path) -> None:
    fake.tokens, fake.token_s = 400, 0.2
    kinds = [PLAIN, PLAIN | {"stream": True}, PLAIN | {"kinetics": VOTE, "stream": True}, PLAIN | {"kinetics": VOTE}]
    ledger = str(tmp_path / "ledger.db")
    with front_end(fake, ledger, folder, tmp_path / "log", "--drain-timeout", "1") as server:
        key = server.key("acme")
        async with asked(server, *kinds, key=key) as tasks:
            await until_sent(fake, 2 + 2 * 3)  # the first samples have their first tokens, so the others have begun
            server.process.send_signal(signal.SIGTERM)
            plain, stream, budgeted_stream, budgeted = await asyncio.gather(*tasks)
        assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert (plain.status_code, plain.json()["error"]["code"]) == (503, "engine_unavailable")
    assert stream.status_code == 200
    *_, error, done = events(stream)
    assert (json.loads(error)["error"]["code"], done) == ("engine_unavailable", "[DONE]")
    *_, last, done = events(budgeted_stream)
    for bill in (budgeted.json()["kinetics"], json.loads(last)["kinetics"]):  # what their first samples have so far
        assert (bill["stop_reason"], bill["samples_finished"]) == ("deadline", 0)
    fake.token_s = 0
    with front_end(fake, ledger, folder, tmp_path / "log") as server:
        spent = await asyncio.to_thread(server.spent, key)
        usage = server.usage(key)
        assert (usage["reserved_eflops"], usage["running_requests"]) == (0, 0)
        assert usage["window_spent_eflops"] == sum(spent.values()) > 0


async def test_a_budget_gets_its_best_answer_so_far(fake: FakeVllm, folder: Path, tmp_path: Path) -> None:
    fake.tokens, fake.token_s = 5, 0.2
    with front_end(fake, None, folder, tmp_path / "log", "--drain-timeout", "0.2") as server, fake.holding():
        async with asked(server, PLAIN | {"kinetics": VOTE}) as (task,):
            fake.tokens = 4000  # of all but the first sample, which is with the engine already
            fake.goes_ahead = lambda: True
            await until_sent(fake, 3)
            await until(lambda: running_samples(server) == 2, 60)
            server.process.send_signal(signal.SIGTERM)
            response = await task
    assert response.status_code == 200
    bill = response.json()["kinetics"]
    assert bill["stop_reason"] == "deadline"
    assert [sample["status"] for sample in bill["samples"]] == ["finished", "cancelled", "cancelled"]
    assert response.json()["choices"][0]["message"]["content"]


async def test_a_second_signal_does_not_wait(fake: FakeVllm, folder: Path, tmp_path: Path) -> None:
    kinds = [PLAIN, PLAIN | {"kinetics": VOTE}, PLAIN | {"kinetics": VOTE, "stream": True}]
    with fake.holding(), front_end(fake, None, folder, tmp_path / "log", "--drain-timeout", "600") as server:
        async with asked(server, *kinds) as tasks:
            server.process.send_signal(signal.SIGTERM)
            await until_stopping(server)  # or the two signals may come as one
            server.process.send_signal(signal.SIGTERM)
            for response in await asyncio.gather(*tasks):  # nothing has generated anything yet
                assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
        assert await asyncio.to_thread(server.process.wait, 60) == 0
