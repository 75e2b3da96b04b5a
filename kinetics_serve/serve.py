"""Runs the front-end, and the embedded engine where it has one, until told to stop."""

import asyncio
import logging
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from kinetics_serve.api.services import Services
from kinetics_serve.engine.supervisor import Supervisor

GRACEFUL_SHUTDOWN_S = 30


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


async def serve(app: FastAPI, listener: socket.socket, supervisor: Supervisor | None) -> None:
    """Serves until SIGTERM or SIGINT. The engine is ended in every case. Raises EngineError if it can't start."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=logging.getLogger().isEnabledFor(logging.DEBUG),
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.create_task(server.serve([listener]))
    engine = asyncio.create_task(_keep_engine(app, supervisor)) if supervisor is not None else None
    try:
        await asyncio.wait({serving, *([engine] if engine else [])}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if engine is not None and engine.done():
            await engine
    finally:
        if supervisor is not None and engine is not None:
            engine.cancel()
            await asyncio.gather(engine, return_exceptions=True)
            await supervisor.stop()


async def _keep_engine(app: FastAPI, supervisor: Supervisor) -> None:
    await supervisor.start()
    services: Services = app.state.services
    services.pool.upstreams[0].url = supervisor.url
    await supervisor.watch()
