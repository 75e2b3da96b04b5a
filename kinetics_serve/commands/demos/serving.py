"""A server for a demo, and what a demo prints to."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

REPORT_WIDTH = 100
"""Columns of the table where the output is no terminal."""

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=REPORT_WIDTH)

START_TIMEOUT_S = 900
STOP_TIMEOUT_S = 30


class NotStarted(Exception):
    """The server did not start; the message has its last words."""


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """The URL of a `kinetics-serve serve` with these options, stopped afterwards. Raises NotStarted."""
    with tempfile.TemporaryDirectory(prefix="kinetics-demo-") as folder, (Path(folder) / "log").open("w+") as log:
        url = f"http://127.0.0.1:{_free_port()}"
        command = [sys.executable, "-m", "kinetics_serve", "serve", "--port", url.rpartition(":")[2], *options]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            if not _wait_until_ready(server, url, Path(log.name)):
                words = Path(log.name).read_text()[-4000:]
                raise NotStarted(f"{words}\nThe server did not start: its last words stand above.")
            yield url
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: "subprocess.Popen[bytes]", url: str, log: Path) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    with console.status("starting") as status:
        while server.poll() is None and time.monotonic() < deadline:
            phases = [line for line in log.read_text().splitlines() if line.startswith(("engine:", "bundled model:"))]
            status.update(phases[-1] if phases else "starting")
            try:
                if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                    return True
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
    return False
