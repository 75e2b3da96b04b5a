"""Runs the front-end, and the embedded engine where it has one, until told to stop."""

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from kinetics_serve.engine.embedded.supervise import Supervisor
from kinetics_serve.requests.drain import GRACE_S, Drain
from kinetics_serve.requests.services import Services
from kinetics_serve.server.accepting import PAUSE_S, Accepting
from kinetics_serve.server.announce import announce
from kinetics_serve.server.limited_http import LimitedHttp

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 30.0

CLOSE_TIMEOUT_S = 5
"""Seconds for connections to close once no request runs."""

KEEP_ALIVE_S = 75
"""Longer than the usual proxy keeps a connection that it does not use, so that it is the proxy that closes it."""

OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)

YOUNG_OBJECTS = 10_000
"""New objects after which garbage is looked for. Python's 700 is less than what one read of a stream parses into."""


class _Server(uvicorn.Server):
    """uvicorn's, which takes its connections by `Accepting`."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, pause_s: float) -> None:
        super().__init__(config)
        self._listener = listener
        self._pause_s = pause_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self.servers = [Accepting(self._listener, self._new_protocol, self._pause_s)]  # type: ignore[list-item]

    def stop_accepting(self) -> None:
        for server in getattr(self, "servers", ()):
            server.close()

    def _new_protocol(self) -> LimitedHttp:
        return LimitedHttp(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """uvicorn raises the signal again when it is done, which would end us before the engine is stopped."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises OSError with what to do when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        advice = "choose another --port" if error.errno in OF_THE_PORT else "--host is an address of this machine"
        raise OSError(f"can't listen on {host}:{port}: {error.strerror}; {advice}") from None
    return listener


def new_event_loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


async def serve(
    app: FastAPI,
    listener: socket.socket,
    supervisor: Supervisor | None,
    drain_timeout_s: float = DRAIN_TIMEOUT_S,
    parent: int | None = None,
    announced: str | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, and then until what runs has finished, at most drain_timeout_s; a second signal
    ends that. The engine is ended in every case. Raises EngineError if it can't start.

    parent: a file descriptor that reaches its end when the process does without which this one should stop too.
    announced: printed to standard error when the first request could be answered.
    """
    config = uvicorn.Config(
        app,
        http=LimitedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_TIMEOUT_S,
    )
    server = _Server(config, listener, 0.0 if parent is None else PAUSE_S)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: looking through it for garbage took a fifth of a request's CPU
    gc.set_threshold(YOUNG_OBJECTS)
    loop = asyncio.get_running_loop()
    stop, hurry, orphaned = asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    if parent is not None:
        loop.add_reader(parent, _set_at_end, parent, orphaned)
    draining = asyncio.create_task(_drain(app, server, drain_timeout_s, stop, hurry, orphaned))
    serving = asyncio.create_task(server.serve())
    engine = asyncio.create_task(_keep_engine(app, supervisor)) if supervisor is not None else None
    announcing = asyncio.create_task(announce(listener, announced)) if announced is not None else None
    try:
        ends = {serving, draining, *([engine] if engine else [])}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if engine is not None and engine.done():
            await engine
    finally:
        draining.cancel()
        if announcing is not None:
            announcing.cancel()
        if supervisor is not None and engine is not None:
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)
            await supervisor.stop()


def _set_at_end(descriptor: int, ended: asyncio.Event) -> None:
    if not os.read(descriptor, 4096):
        asyncio.get_running_loop().remove_reader(descriptor)
        ended.set()


async def _drain(
    app: FastAPI,
    server: _Server,
    timeout_s: float,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    orphaned: asyncio.Event,
) -> None:
    """Returns when nothing runs any more. A process whose parent was killed leaves the port to who comes after it at
    once, and is gone by timeout_s: nobody is left to kill it later.
    """
    told = [asyncio.create_task(event.wait()) for event in (stop, orphaned)]
    await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
    for each in told:
        each.cancel()
    if orphaned.is_set():
        logger.error("the parent of this worker is gone: it ends too")
        server.stop_accepting()
        stop.set()
        timeout_s = max(0.0, timeout_s - GRACE_S - CLOSE_TIMEOUT_S)
    drain: Drain = app.state.drain
    await drain.run(timeout_s, hurry)


async def _keep_engine(app: FastAPI, supervisor: Supervisor) -> None:
    await supervisor.start()
    services: Services = app.state.services
    services.pool.upstreams[0].url = supervisor.url
    await supervisor.watch()
