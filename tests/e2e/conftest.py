"""One real server for all end-to-end tests: kinetics-serve, embedded vLLM, bundled model."""

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

START_TIMEOUT_S = 600
MODEL = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class Server:
    """A running kinetics-serve. `url`: without a trailing slash."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    @property
    def engine_url(self) -> str:
        found: list[str] = re.findall(r"(http://127\.0\.0\.1:\d+) is up", self.log.read_text())
        return found[-1]

    def engine_processes(self) -> dict[int, str]:
        """Process id and command line of everything that the server started."""
        found: dict[int, str] = {}
        parents = {self.process.pid}
        while parents:
            children = {pid for parent in parents for pid in _children(parent)}
            found |= {pid: _command(pid) for pid in children}
            parents = children
        return found

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label values that are not given."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for key, value in self.metrics().items()
            if key.partition("{")[0] == name and all(label in key for label in wanted)
        )

    def engine_running(self) -> float:
        """Requests that vLLM runs now, by its own gauge."""
        text = httpx.get(f"{self.engine_url}/metrics").text
        return sum(float(value) for value in re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", text, re.M))

    def wait_until_ready(self, timeout_s: float) -> float:
        """The seconds it took."""
        start = time.monotonic()
        while time.monotonic() - start < timeout_s:
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return time.monotonic() - start
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"not ready within {timeout_s} s:\n{self.log.read_text()[-5000:]}")


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(15_000 + _WORKER, 32_000, _WORKERS)
"""Of this process alone among those that run tests, and such as no system gives to who asks for any."""


def free_port() -> int:
    """One that nobody takes before it is used."""
    return next(filter(is_free, random.SystemRandom().sample(_PORTS, 100)))


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        probe.listen()
        return True


LONG: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Write a very long story about a ship."}],
    "max_tokens": 3000,
    "logit_bias": {"2": -100},
    "kinetics": {"budget": {"samples": 4}, "strategy": "best_of_n", "max_samples": 4},
}
"""Four samples that generate for long: the end of an answer is made impossible."""


async def until(condition: Callable[[], bool], timeout_s: float) -> float:
    """The seconds until `condition()` was true."""
    start = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - start < timeout_s, "it did not happen in time"
        await asyncio.sleep(0.05)
    return time.monotonic() - start


@contextmanager
def running_server(folder: Path, *options: str, **variables: str) -> Iterator[Server]:
    """A server with an engine of its own that is ready, and is stopped in the end. options: further ones of `serve`."""
    log, port = folder / "log", free_port()
    command = [
        sys.executable,
        "-m",
        "kinetics_serve",
        "serve",
        "--port",
        str(port),
        "--hardware",
        "paper-b200",
        *options,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | variables)
        running = Server(process, f"http://127.0.0.1:{port}", log)
        try:
            running.wait_until_ready(START_TIMEOUT_S)
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With less memory for KV than by default, because two of them may run side by side."""
    with running_server(tmp_path_factory.mktemp("server"), VLLM_CPU_KVCACHE_SPACE="2") as running:
        yield running
