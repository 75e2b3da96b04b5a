"""A front-end on a real socket, in front of the stand-in for vLLM."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from kinetics_serve.server.limited_http import LimitedHttp


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 30
    while httpx.get(f"{url}/ready").status_code != 200:
        assert time.monotonic() < deadline, "the engine does not come back"
        time.sleep(0.05)


@contextmanager
def running(app: FastAPI, **config: Any) -> Iterator[int]:
    """The port on which uvicorn serves the app meanwhile."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, **config))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The URL of the front-end `app`, which is served meanwhile and ready."""
    with running(app, http=LimitedHttp) as port:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        yield url
