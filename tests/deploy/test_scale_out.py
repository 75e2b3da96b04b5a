"""Several engines behind one front-end, and several front-ends behind nginx: what is answered is booked, and once."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.nginx import running_nginx
from tests.e2e.conftest import free_port, until
from tests.fake_vllm import CONFIG
from tests.faults import money
from tests.faults.scene import Scene, scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, bearer, front_end

CHAT = "/v1/chat/completions"


@dataclass
class Engine:
    """A stand-in for vLLM in a process of its own. Its samples have one token, which comes after a while: a request
    that has begun there has nothing yet."""

    folder: Path
    port: int = field(default_factory=free_port)
    open: int = 0

    TOKEN_MS = 5000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        arguments = [str(self.port), str(self.folder), "1", str(self.TOKEN_MS)]
        self.process = subprocess.Popen([sys.executable, "-m", "benchmarks.fake_upstream", *arguments])

    def runs(self) -> bool:
        """Whether it has samples that it was sent."""
        return "vllm:num_requests_running 0\n" not in httpx.get(f"{self.url}/metrics").text

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def up(url: str, engine: Engine) -> bool:
    """Whether the front-end says that the engine is up."""
    return f'kinetics_upstream_up{{upstream="{engine.url}"}} 1.0' in httpx.get(f"{url}/metrics").text


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    both = [Engine(tmp_path), Engine(tmp_path)]
    with ExitStack() as stack:
        for engine in both:
            engine.start()
            stack.callback(engine.kill)
        yield both


async def test_an_engine_that_is_killed_under_load_costs_no_answer_and_is_used_again_when_it_is_back(
    engines: list[Engine], tmp_path: Path
) -> None:
    first, second = engines
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    # Front-end and scene are written for a stand-in in this process, and use what an Engine has too.
    with front_end(first, ledger, tmp_path, tmp_path / "log", "--upstream", second.url) as server:  # type: ignore[arg-type]
        made = Scene(tmp_path, first, ledger, None, [server])  # type: ignore[arg-type]
        await until(lambda: up(server.url, first) and up(server.url, second), 60)
        dies = first

        async def kill() -> None:
            """One that has samples."""
            nonlocal dies
            await until(lambda: first.runs() or second.runs(), 60)
            dies = first if first.runs() else second
            dies.kill()

        for _ in range(2):
            name, key = await made.tenant("killed")
            tally = Tally("kill -9 of an engine", made.kind)
            await made.load(tally, key, 24, kill)
            assert tally.answered == 24, tally.refused
            assert f"{dies.url} failed a request, which goes to" in server.log.read_text()
            await made.settled(tally, name)
            assert not tally.wrong, tally
            assert tally.booked == tally.bills  # what was begun in vain costs nothing
            await until(lambda: not up(server.url, dies), 60)
            dies.start()
            await until(lambda: up(server.url, dies), 60)


@pytest.fixture(scope="module")
async def behind_nginx() -> AsyncIterator[tuple[Scene, Scene]]:
    """Two front-ends on one PostgreSQL, and the same by the address of the nginx before them.

    Their leases are the usual ones: bills that come after theirs has ended, as on a busy machine, may exceed a quota.
    """
    async with scene("postgresql", (1, 1), "--lease-s", "60") as made:
        with running_nginx([server.url for server in made.front_ends]) as url:
            yield made, replace(made, front_ends=[replace(made.front_ends[0], url=url)])


async def test_a_quota_holds_over_front_ends_behind_nginx(behind_nginx: tuple[Scene, Scene]) -> None:
    tally = await money.quota(behind_nginx[1])
    assert not tally.wrong, tally


@pytest.mark.parametrize("path", ["/metrics", "/admin", "/v1/kinetics/admin/tenants"])
async def test_what_is_for_the_inside_does_not_pass_nginx(behind_nginx: tuple[Scene, Scene], path: str) -> None:
    _, through = behind_nginx
    async with httpx.AsyncClient(base_url=through.front_ends[0].url, timeout=60) as client:
        assert (await client.get("/health")).status_code == 200
        refused = await client.get(path)
        assert refused.status_code == 404
        assert "nginx" in refused.text  # by it, and not by a front-end


KINETICS: dict[str, Any] = {"budget": {"samples": 2}, "strategy": "best_of_n", "max_samples": 2}


@pytest.mark.parametrize("kinetics", [None, KINETICS], ids=["plain", "budgeted"])
async def test_a_streams_events_pass_nginx_while_the_engine_still_generates(
    behind_nginx: tuple[Scene, Scene], kinetics: dict[str, Any] | None
) -> None:
    _, through = behind_nginx
    _, key = await through.tenant("stream")
    body = QUESTION | {"stream": True} | ({"kinetics": kinetics} if kinetics else {})
    # So slow, and so little, that what is held back anywhere comes with the end.
    through.upstream.tokens, through.upstream.token_s = 20, 1.0
    lines: list[str] = []
    async with (
        httpx.AsyncClient(timeout=60, headers=bearer(key)) as client,
        client.stream("POST", through.front_ends[0].url + CHAT, json=body) as response,
    ):
        assert response.status_code == 200
        reading = response.aiter_lines()
        while len(lines) < 6:  # three events, and the blank lines after them
            lines.append(await anext(reading))
        assert through.upstream.open > 0
        through.upstream.token_s = 0.01
        lines += [line async for line in reading]
    through.upstream.well()
    assert lines[0].startswith("data: {")
    assert lines[-2:] == ["data: [DONE]", ""]


async def test_a_front_end_that_is_stopped_under_load_behind_nginx_loses_nothing(
    behind_nginx: tuple[Scene, Scene],
) -> None:
    """What runs there is answered. What comes is refused with when to come again, and answered then."""
    made, through = behind_nginx
    name, key = await made.tenant("stopped")
    running, coming = Tally("SIGTERM behind nginx", made.kind), Tally("", made.kind)
    server = made.front_ends[1]

    async def stop() -> None:
        await made.until_running(name, 16)
        made.upstream.still = True  # so that what runs there doesn't end before it is asked
        server.process.send_signal(signal.SIGTERM)
        await until(lambda: httpx.get(f"{server.url}/ready").status_code == 503, 60)
        made.upstream.still = False
        await through.load(coming, key, 12)

    await through.load(running, key, 20, stop)
    assert running.answered == 20, running.refused
    assert all("this server is stopping" in why for why in coming.refused), coming.refused
    await asyncio.to_thread(server.process.wait, 60)
    await through.load(coming, key, 12 - coming.answered)  # as clients do that were told to
    assert coming.answered == 12, coming.refused
    both = replace(running, bills=running.bills + coming.bills, requests=32, answered=32, slack=0)
    await made.settled(both, name)
    assert not both.wrong, both
    assert both.booked == both.bills
