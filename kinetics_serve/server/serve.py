"""Runs the front-end, and the embedded engine where it has one, until told to stop."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from kinetics_serve.engine.embedded.supervise import Supervisor
from kinetics_serve.requests.drain import Drain
from kinetics_serve.requests.services import Services
from kinetics_serve.server.announce import announce
from kinetics_serve.server.limited_http import LimitedHttp

DRAIN_TIMEOUT_S = 30.0

CLOSE_TIMEOUT_S = 5
"""Seconds for connections to close once no request runs."""

KEEP_ALIVE_S = 75
"""Longer than the usual proxy keeps a connection that it does not use, so that it is the proxy that closes it."""

YOUNG_OBJECTS = 10_000
"""New objects after which garbage is looked for. Python's 700 is less than what one read of a stream parses into."""


class _Server(uvicorn.Server):
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
        raise OSError(f"can't listen on {host}:{port}: {error.strerror}; choose another --port") from None
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
    server = _Server(config)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: looking through it for garbage took a fifth of a request's CPU
    gc.set_threshold(YOUNG_OBJECTS)
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    if parent is not None:
        loop.add_reader(parent, _stop_at_end, parent, stop)
    draining = asyncio.create_task(_drain(app, drain_timeout_s, stop, hurry))
    serving = asyncio.create_task(server.serve([listener]))
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


def _stop_at_end(descriptor: int, stop: asyncio.Event) -> None:
    if not os.read(descriptor, 4096):
        asyncio.get_running_loop().remove_reader(descriptor)
        stop.set()


async def _drain(app: FastAPI, timeout_s: float, stop: asyncio.Event, hurry: asyncio.Event) -> None:
    await stop.wait()
    drain: Drain = app.state.drain
    await drain.run(timeout_s, hurry)


async def _keep_engine(app: FastAPI, supervisor: Supervisor) -> None:
    await supervisor.start()
    services: Services = app.state.services
    services.pool.upstreams[0].url = supervisor.url
    await supervisor.watch()
