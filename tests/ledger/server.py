"""A real front-end process in front of a stand-in for vLLM."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import httpx
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.cost import Price, load_architecture
from kinetics_serve.ledger import keys, tenants
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from tests.e2e.conftest import free_port
from tests.fake_vllm import MODEL, PROMPT_TOKENS, FakeVllm

B200 = 562.5
START_TIMEOUT_S = 180
"""Three workers on a machine that does much else."""
SETTLED_WITHIN_S = 60
QUESTION: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
VOTE = {"budget": {"samples": 4}, "strategy": "majority_vote", "answer": {"extractor": "last_line"}}


def run_command(*arguments: str, succeeds: bool = True) -> str:
    """What the command prints on standard output, or on standard error where it fails."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert (result.exit_code == 0) == succeeds, result.output
    return result.stdout if succeeds else result.stderr


@dataclass
class FrontEnd:
    url: str
    ledger: str
    log: Path
    process: "subprocess.Popen[bytes]"
    fake: FakeVllm
    folder: Path
    probes: list[int]
    """What `/ready` answered until it was 200."""

    def key(self, tenant: str, **limits: Any) -> str:
        """A new key of a tenant with these limits."""

        async def create() -> str:
            ledger = Ledger(Database(self.ledger))
            async with ledger.database.write() as connection:
                key = await keys.create(
                    connection, await tenants.save(connection, tenant, limits, ledger.now), "test", ledger.now
                )
            await ledger.close()
            return key

        with ThreadPoolExecutor(1) as thread:  # the test's own thread may have a loop that runs
            return thread.submit(lambda: asyncio.run(create())).result()

    def ask(self, key: str | None, body: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=bearer(key), timeout=60)

    def usage(self, key: str) -> dict[str, Any]:
        response = httpx.get(f"{self.url}/v1/kinetics/usage", headers=bearer(key))
        assert response.status_code == 200, response.text
        return dict(response.json())

    def spent(self, key: str) -> dict[str, int]:
        """eFLOPs by strategy, once nothing of the tenant's runs any more."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while (usage := self.usage(key))["running_requests"]:
            assert time.monotonic() < deadline, "the reservation was not settled"
            time.sleep(0.05)
        return {row["strategy"]: row["eflops"] for row in usage["data"]}

    def eflops(self, tokens: int, cached: int = 0) -> int:
        """What a sample of so many tokens costs."""
        price = Price(load_architecture(self.folder), B200)
        return ceil(price.eflops(price.sample(PROMPT_TOKENS, tokens, cached_tokens=cached)))


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key}"}


async def leave(
    server: FrontEnd, key: str, body: dict[str, Any], path: str = "/v1/chat/completions", events: int = 0
) -> None:
    """Asks, and is gone before the answer is complete: with so many events of a stream, or as soon as an engine has it.

    Of a client that only waits for a while, nobody knows how far its request has come.
    """

    async def ask() -> None:
        async with (
            httpx.AsyncClient(timeout=None, headers=bearer(key)) as client,
            client.stream("POST", server.url + path, json=body) as answer,
        ):
            seen = 0
            async for line in answer.aiter_lines():
                seen += line.startswith("data:")
                if seen == events:
                    return
        raise AssertionError("the answer was complete")

    asking = asyncio.create_task(ask())
    async with asyncio.timeout(60):
        while not asking.done() and (events or not server.fake.sent(path)):
            await asyncio.sleep(0.01)
    if asking.done():
        return asking.result()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@contextmanager
def front_end(
    fake: FakeVllm, ledger: str | None, folder: Path, log: Path, *more: str, module: str = "kinetics_serve"
) -> Iterator[FrontEnd]:
    """One that is ready. more: its further options. module: what is run."""
    port = free_port()
    options = ["--upstream", fake.url, "--port", str(port), "--hardware", "paper-b200", "--log-level", "debug"]
    if ledger is not None:
        options += ["--ledger", ledger]
    options += more
    environment = os.environ | {"XDG_STATE_HOME": str(log.parent / "state")}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", *options], stdout=output, stderr=output, env=environment
        )
    running = FrontEnd(f"http://127.0.0.1:{port}", ledger or "", log, process, fake, folder, [])
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while 200 not in running.probes:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            with suppress(httpx.HTTPError):
                running.probes.append(httpx.get(f"{running.url}/ready").status_code)
            time.sleep(0.1)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def check_error(response: httpx.Response, status: int, code: str, *words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    for word in words:
        assert word in error["message"]
