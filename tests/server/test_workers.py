"""Several workers behind one port, as real processes."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import free_port, is_free
from tests.fake_vllm import CONFIG, MODEL, FakeVllm, running_fake_vllm
from tests.ledger.server import START_TIMEOUT_S, FrontEnd, front_end

WORKERS = 3
CHAT = "/v1/chat/completions"
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def fake(folder: Path) -> Iterator[FakeVllm]:
    with running_fake_vllm(folder) as fake:
        yield fake


@pytest.fixture
def server(fake: FakeVllm, folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FrontEnd]:
    """Further options may be a parameter's."""
    fake.tokens, fake.token_s = 8, 0
    fake.requests.clear()
    options = ("--workers", str(WORKERS), *getattr(request, "param", ()))
    with front_end(fake, str(tmp_path / "ledger.db"), folder, tmp_path / "log", *options) as server:
        until(lambda: len(workers(server.process.pid)) == WORKERS)
        yield server


def workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    async def wait() -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.05)

    with ThreadPoolExecutor(1) as thread:  # the test's own thread may have a loop that runs
        thread.submit(asyncio.run, wait()).result()


def lives(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def metric(server: FrontEnd, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))


def test_metrics_and_the_ledger_add_up_over_workers_that_come_and_go(server: FrontEnd) -> None:
    key = server.key("acme")
    body = PLAIN | {"kinetics": {"budget": {"samples": 1}, "strategy": "single"}}
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: server.ask(key, body), range(30)))
    for answer in answers:
        assert answer.status_code == 200, answer.text
    bills = [answer.json()["kinetics"] for answer in answers]
    spent = sum(bill["spent_eflops"] for bill in bills)
    for _ in range(10):  # whichever worker answers
        assert metric(server, "kinetics_requests_total") == 30
        assert metric(server, "kinetics_eflops_total") == pytest.approx(spent, rel=1e-6)
        assert metric(server, "kinetics_inflight_samples") == 0
        assert metric(server, "kinetics_upstream_up") == 1
    assert server.spent(key) == {"single": spent}
    victim, *others = workers(server.process.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(workers(server.process.pid)) == WORKERS and victim not in workers(server.process.pid))
    assert set(others) < set(workers(server.process.pid))
    assert server.ask(key, body).status_code == 200
    assert metric(server, "kinetics_requests_total") == 31  # what the dead one counted is not lost


def test_no_worker_takes_a_request_before_it_has_checked_the_engine(
    fake: FakeVllm, folder: Path, tmp_path: Path
) -> None:
    fake.health_s = 1
    try:
        with front_end(fake, None, folder, tmp_path / "log", "--workers", "2") as server:
            assert server.probes == [200]
    finally:
        fake.health_s = 0


async def test_a_stop_drains_all_workers_and_leaves_none(server: FrontEnd, fake: FakeVllm) -> None:
    key = server.key("acme")
    children = workers(server.process.pid)
    async with httpx.AsyncClient(timeout=60, headers={"authorization": f"Bearer {key}"}) as client:
        with fake.holding():
            tasks = [asyncio.create_task(client.post(server.url + CHAT, json=PLAIN)) for _ in range(12)]
            async with asyncio.timeout(60):
                while len(fake.sent(CHAT)) < 12:
                    await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                while (await client.get(f"{server.url}/ready")).status_code != 503:
                    await asyncio.sleep(0.02)
        assert [response.status_code for response in await asyncio.gather(*tasks)] == [200] * 12
    assert await asyncio.to_thread(server.process.wait, 60) == 0
    assert not any(lives(child) for child in children)


@pytest.mark.parametrize("server", [("--drain-timeout", "5")], indirect=True, ids=["drain of 5 s"])
async def test_no_worker_outlives_its_killed_parent_by_more_than_the_drain_and_the_port_is_free_at_once(
    server: FrontEnd, fake: FakeVllm
) -> None:
    key = server.key("acme")
    fake.tokens, fake.token_s = 4000, 0.05  # longer than any drain
    children = workers(server.process.pid)
    async with httpx.AsyncClient(timeout=60, headers={"authorization": f"Bearer {key}"}) as client:
        tasks = [asyncio.create_task(client.post(server.url + CHAT, json=PLAIN)) for _ in range(6)]
        async with asyncio.timeout(60):
            while len(fake.sent(CHAT)) < 6:
                await asyncio.sleep(0.02)
        server.process.kill()
        port = int(server.url.rpartition(":")[2])
        until(lambda: is_free(port), 20)
        assert any(lives(child) for child in children)  # they drain
        until(lambda: not any(lives(child) for child in children), 25)  # after 5 s: a drain is of 30 s by default
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {each.status_code for each in answers if isinstance(each, httpx.Response)} <= {200, 503}


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_stopped_server_ends_without_a_word_of_failure(
    fake: FakeVllm, folder: Path, tmp_path: Path, count: str
) -> None:
    log = tmp_path / "log"
    with front_end(fake, str(tmp_path / "ledger.db"), folder, log, "--workers", count) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
    assert "Traceback" not in log.read_text()


def test_a_burst_of_connections_is_spread_over_all_workers(server: FrontEnd) -> None:
    port = int(server.url.rpartition(":")[2])
    children = [psutil.Process(pid) for pid in workers(server.process.pid)]

    def taken() -> list[int]:
        """Connections of each worker."""
        found = [child.net_connections("tcp") for child in children]
        return [sum(each.laddr.port == port and each.status == "ESTABLISHED" for each in own) for own in found]

    def burst(connections: int) -> list[int]:
        """How many of so many at once each worker takes."""
        until(lambda: not any(taken()))
        with ExitStack() as stack:
            for _ in range(connections):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            until(lambda: sum(taken()) == connections)
            return taken()

    while not all(burst(30)):  # each is up
        pass
    counts = burst(240)
    assert max(counts) <= 160, counts  # a worker may have to wait for a processor: then two share them


ENGINE = """
import os, pathlib, sys, uvicorn
from tests.fake_vllm import FakeVllm, app_of
option = dict(zip(sys.argv, sys.argv[1:]))
folder = pathlib.Path(option["--model"])
with (folder / "engines").open("a") as engines:
    print(os.getpid(), file=engines)
uvicorn.run(app_of(FakeVllm(""), folder), port=int(option["--port"]))
"""
"""In the place of vLLM's own server."""


def test_workers_share_one_embedded_engine_which_ends_with_them(tmp_path: Path) -> None:
    package = tmp_path / "stand-in" / "vllm" / "entrypoints" / "launchers" / "api_server"
    package.mkdir(parents=True)
    for folder in list(package.parents)[:3]:  # or the installed vLLM would be found first
        (folder / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(ENGINE)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    port = free_port()
    command = ["--model", str(folder), "--workers", "2", "--port", str(port), "--hardware", "b200"]
    path = os.pathsep.join(
        [str(tmp_path / "stand-in"), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kinetics_serve", "serve", *command],
            env=os.environ | {"PYTHONPATH": path},
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/ready"), START_TIMEOUT_S)
        (engine,) = map(int, (folder / "engines").read_text().split())
        children = workers(process.pid)
        body = PLAIN | {"kinetics": {"budget": {"samples": 2}, "strategy": "best_of_n"}}
        for _ in range(6):
            assert httpx.post(f"http://127.0.0.1:{port}{CHAT}", json=body, timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not any(lives(pid) for pid in (engine, *children))
        assert len((folder / "engines").read_text().split()) == 1
    finally:
        process.kill()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
