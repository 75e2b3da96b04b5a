"""Starts one vLLM server on a loopback port, keeps it running, and ends it with everything it started."""

import asyncio
import codecs
import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

import httpx

from kinetics_serve.engine.embedded.diagnose import (
    EngineError,
    PortTakenError,
    check_model_folder,
    describe_status,
    explain,
    last_error,
    tail,
)
from kinetics_serve.engine.embedded.launch import engine_command, engine_environment
from kinetics_serve.engine.embedded.phases import FIRST, NOISE, READY, Progress, phase_of

log = logging.getLogger("kinetics_serve.engine")

GUARDIAN = (sys.executable, "-m", "kinetics_serve.engine.embedded.guardian", "--")

HEALTH_POLL_S = 0.25
HEALTH_TIMEOUT_S = 5.0
FIRST_RESTART_DELAY_S = 1.0
LONGEST_RESTART_DELAY_S = 60.0
HEALTHY_AFTER_S = 60.0
"""An engine that was ready for this long is restarted as if for the first time."""
STOP_TIMEOUT_S = 12.0
"""The guardian gives the engine five seconds from SIGTERM to SIGKILL, and the kernel as long after that."""
PORT_ATTEMPTS = 3
LOG_LINES = 400
"""Lines searched for the reason of a failure: vLLM logs a traceback in each of its processes."""


class Supervisor:
    """The embedded engine."""

    def __init__(
        self,
        model: str,
        *,
        served_name: str,
        engine_args: Sequence[str] = (),
        python: str = sys.executable,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        start_timeout_s: float = 900,
    ) -> None:
        self.model = model
        """A folder or a hub name."""
        self.served_name = served_name
        """What clients call it."""
        self.engine_args = tuple(engine_args)
        """Passed to vLLM as they are: they win over our defaults."""
        self.python = python
        """The interpreter that has vLLM."""
        self.on_progress = on_progress
        """Called with every new phase of a start, and several times a second in between."""
        self.start_timeout_s = start_timeout_s
        self.port = free_port()
        """Stays the same over restarts; a first start that finds it taken changes it."""
        self.ready = False
        """The engine has answered and has not ended since."""
        self._guardian: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._pid: int | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._phase = ""
        self._started_at = 0.0
        self._stopped = False
        self._launching = asyncio.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id of vLLM's API server; None when it does not run."""
        return self._pid if self._runs() else None

    async def start(self) -> None:
        """Starts the engine and returns when it answers. Raises EngineError; nothing is left running then."""
        self._stopped = False
        check_model_folder(self.model)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                return await self._launch()
            except PortTakenError:
                if attempt == PORT_ATTEMPTS:
                    raise
                self.port = free_port()

    async def watch(self) -> None:
        """Restarts the engine whenever it dies, until cancelled or stopped. For after `start()`."""
        delay = FIRST_RESTART_DELAY_S
        while not self._stopped and self._guardian is not None:
            ready_at = time.monotonic()
            status = await self._guardian.wait()
            was_ready, self.ready = self.ready, False
            if self._stopped:
                return
            if was_ready:
                log.error(
                    "The engine died (%s): %s", describe_status(status), last_error(self._lines) or "no error logged"
                )
                if time.monotonic() - ready_at >= HEALTHY_AFTER_S:
                    delay = FIRST_RESTART_DELAY_S
            log.warning("Restarting the engine in %g s", delay)
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_RESTART_DELAY_S)
            if self._stopped:
                return
            try:
                await self._launch()
            except EngineError as error:
                if not self._stopped:
                    log.error("The engine did not come back: %s", error)

    async def stop(self) -> None:
        """Ends the engine and everything it started. Does nothing when it does not run."""
        self._stopped = True
        await self._end()
        async with self._launching:  # one that was just being spawned sees that it is not wanted
            await self._end()

    async def _launch(self) -> None:
        """One run of the engine, until it answers. Ends it again on any failure and on cancellation."""
        async with self._launching:
            await self._launch_alone()

    async def _launch_alone(self) -> None:
        self._lines.clear()
        self._phase = ""
        self._started_at = time.monotonic()
        self._enter(FIRST)
        if not is_free(self.port):
            raise PortTakenError(f"Port {self.port} of 127.0.0.1 is taken by another program.")
        try:
            await self._spawn()
            await self._until_healthy()
        except BaseException:
            await self._end()
            raise
        self.ready = True
        self._enter(READY)

    async def _spawn(self) -> None:
        command = engine_command(self.python, self.model, self.served_name, self.port, self.engine_args)
        log.debug("Starting the engine: %s", " ".join(command))
        self._guardian = await asyncio.create_subprocess_exec(
            *GUARDIAN,
            *command,
            stdin=subprocess.PIPE,  # held open as long as we live
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=engine_environment(self.model, self.engine_args, os.environ),
            start_new_session=True,  # a Ctrl-C in our terminal is for us; we end the engine when we are done
        )
        self._pid = None
        self._reader = asyncio.create_task(self._read(self._guardian))

    async def _until_healthy(self) -> None:
        assert self._guardian is not None
        deadline = self._started_at + self.start_timeout_s
        async with httpx.AsyncClient(timeout=HEALTH_TIMEOUT_S, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self._stopped or self._guardian.returncode is not None:
                    await self._end()  # so that the log is complete
                    status = await self._guardian.wait()
                    raise explain(self._lines, status, self.model, self.python, self._stopped)
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(f"{self.url}/health")).status_code == httpx.codes.OK:
                        return
                self.on_progress(self._progress())
                await asyncio.sleep(HEALTH_POLL_S)
        raise EngineError(
            f"The engine was not ready after {self.start_timeout_s:.0f} s (last phase: {self._phase}). "
            "A large model may need longer: raise --start-timeout.",
            tail(self._lines),
        )

    async def _end(self) -> None:
        self.ready = False
        guardian, reader = self._guardian, self._reader
        if guardian is None or guardian.stdin is None:
            return
        guardian.stdin.close()  # the guardian's sign to end everything
        try:
            await asyncio.wait_for(guardian.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            log.error("The engine's guardian %d does not end: killing it", guardian.pid)
            guardian.kill()
            await guardian.wait()
        if reader is not None:
            await asyncio.wait([reader])  # not cancelled along with us

    def _runs(self) -> bool:
        return self._guardian is not None and self._guardian.returncode is None

    async def _read(self, guardian: asyncio.subprocess.Process) -> None:
        """Takes the engine's output until its end; a carriage return (progress bars) ends a line too."""
        assert guardian.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while chunk := await guardian.stdout.read(1 << 16):
            *lines, rest = re.split(r"[\r\n]+", rest + decoder.decode(chunk))
            for line in lines:
                self._take(line)
        self._take(rest)

    def _take(self, line: str) -> None:
        if self._pid is None and line.isdigit():
            self._pid = int(line)  # the guardian's first line
            return
        if not line.strip():
            return
        log.debug("%s", line)
        if not NOISE.search(line):
            self._lines.append(line)
        if not self.ready and (phase := phase_of(line)) is not None:
            self._enter(phase)

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self.on_progress(self._progress())

    def _progress(self) -> Progress:
        return Progress(self._phase, time.monotonic() - self._started_at)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does: connections may linger
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
