"""Several front-end processes on one socket, and the one engine that they may share."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from kinetics_serve.engine.embedded.supervise import Supervisor
from kinetics_serve.observability.folder import fold
from kinetics_serve.observability.metrics import METRICS_FOLDER
from kinetics_serve.requests.drain import GRACE_S
from kinetics_serve.server.announce import announce

logger = logging.getLogger(__name__)

VARIABLE = "_KINETICS_WORKER"
"""Not one of the variables that set options."""

SHORT_LIFE_S = 10.0
MOST_SHORT_LIVES = 3
RESTART_DELAY_S = 1.0


class WorkersFailed(Exception):
    """The workers end as soon as they start."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker is told beside the command line, which is its parent's own."""

    descriptor: int
    """Of the socket to listen on."""
    engine: str | None
    """The URL of the parent's engine; None with upstreams."""
    count: int
    """How many workers there are."""

    @classmethod
    def from_environment(cls) -> Self | None:
        """None in a process that is no worker."""
        told = os.environ.get(VARIABLE)
        return cls(**json.loads(told)) if told else None

    def listener(self) -> socket.socket:
        return socket.socket(fileno=self.descriptor)


async def serve(
    count: int,
    listener: socket.socket,
    supervisor: Supervisor | None,
    drain_timeout_s: float,
    announced: str | None = None,
) -> None:
    """Runs the workers until SIGTERM or SIGINT, which they get too, and restarts those that die meanwhile.

    The engine is ended in every case, and no worker outlives this process: each ends when its standard input does.
    announced: printed to standard error when the first request could be answered. Raises EngineError and WorkersFailed.
    """
    signals: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, number)
    with tempfile.TemporaryDirectory(prefix="kinetics-metrics-") as folder:
        workers = [_Process(count, listener, supervisor, folder) for _ in range(count)]
        running: asyncio.Future[Any] = asyncio.gather(*(worker.keep() for worker in workers))
        engine: asyncio.Future[Any] | None = None
        if supervisor is not None:
            engine = asyncio.create_task(_keep_engine(supervisor, workers))
        stopped: asyncio.Future[Any] = asyncio.create_task(signals.get())
        announcing = asyncio.create_task(announce(listener, announced)) if announced is not None else None
        try:
            ends = {running, stopped, *([engine] if engine else [])}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in (running, engine):
                if end is not None and end.done():
                    await end
        finally:
            stopped.cancel()
            if announcing is not None:
                announcing.cancel()
            await _stop(workers, running, signals, drain_timeout_s)
            if supervisor is not None and engine is not None:
                engine.cancel()
                await asyncio.gather(engine, return_exceptions=True)
                await supervisor.stop()


async def _stop(
    workers: list["_Process"], running: "asyncio.Future[Any]", signals: "asyncio.Queue[int]", timeout_s: float
) -> None:
    """Ends the workers, which drain; a further signal reaches them too."""

    async def pass_on() -> None:
        while True:
            await signals.get()
            for worker in workers:
                worker.terminate()

    for worker in workers:
        worker.stop()
    passing_on = asyncio.create_task(pass_on())
    await asyncio.wait({running}, timeout=timeout_s + 4 * GRACE_S)
    passing_on.cancel()
    for worker in workers:
        worker.kill()
    await asyncio.gather(running, passing_on, return_exceptions=True)


async def _keep_engine(supervisor: Supervisor, workers: list["_Process"]) -> None:
    told = supervisor.url
    await supervisor.start()
    if supervisor.url != told:  # its port was taken
        for worker in workers:
            worker.terminate()
    await supervisor.watch()


@dataclass(slots=True)
class _Process:
    """One worker, over all its lives."""

    count: int
    listener: socket.socket
    supervisor: Supervisor | None
    folder: str
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = field(default=False)

    async def keep(self) -> None:
        """Returns when the worker has been stopped."""
        short_lives = 0
        while not self._stopping:
            born = time.monotonic()
            self._process = await self._spawn()
            if self._stopping:
                self.terminate()
            status = await self._process.wait()
            fold(self._process.pid, self.folder)
            if self._stopping or status == 0:
                continue
            logger.error("worker %d died (exit status %d)", self._process.pid, status)
            short_lives = short_lives + 1 if time.monotonic() - born < SHORT_LIFE_S else 0
            if short_lives == MOST_SHORT_LIVES:
                raise WorkersFailed("the workers end as soon as they start; what they said is above")
            await asyncio.sleep(RESTART_DELAY_S)

    def stop(self) -> None:
        self._stopping = True
        self.terminate()

    def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            logger.error("worker %d does not end: killing it", self._process.pid)
            self._process.kill()

    async def _spawn(self) -> asyncio.subprocess.Process:
        told = Worker(self.listener.fileno(), self.supervisor.url if self.supervisor else None, self.count)
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "kinetics_serve", *sys.argv[1:]),
            stdin=subprocess.PIPE,  # held open as long as we live
            env=os.environ | {VARIABLE: json.dumps(asdict(told)), METRICS_FOLDER: self.folder},
            pass_fds=[self.listener.fileno()],
            start_new_session=True,  # a Ctrl-C in our terminal is for us
        )
