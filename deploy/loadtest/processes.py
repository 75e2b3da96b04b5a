"""Processes of a load test, none of which outlives it, be it killed; and the server that is tested by default."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

START_TIMEOUT_S = 900
STOP_TIMEOUT_S = 60


class NotStarted(Exception):
    """The server ended, or was not ready in time."""


@contextmanager
def guarded(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """What sees to it that the command, and all that this starts, ends when this is left, and when we die."""
    guardian = [sys.executable, "-m", "kinetics_serve.engine.embedded.guardian", "--", *command]
    with log.open("wb") as output:
        # It watches its standard input, whose other end closes with us.
        process = subprocess.Popen(guardian, stdin=subprocess.PIPE, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


@contextmanager
def embedded_server(arguments: Sequence[str], log: Path) -> Iterator[str]:
    """The URL of `kinetics-serve serve` with these arguments, when it is ready. Raises NotStarted."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with guarded([sys.executable, "-m", "kinetics_serve", "serve", "--port", str(port), *arguments], log) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"the server did not get ready; {log} ends with\n{last_lines(log)}")
            time.sleep(0.5)
        yield url


def last_lines(log: Path, count: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
