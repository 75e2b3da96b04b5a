"""A front-end on a real socket, in front of the stand-in for vLLM."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from kinetics_serve.api.app import create_app
from kinetics_serve.requests.services import Settings
from kinetics_serve.server.limited_http import LimitedHttp
from tests.fake_vllm import FakeVllm, running_fake_vllm


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


@pytest.fixture(scope="package")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("stand-in")) as fake:
        yield fake


@pytest.fixture(scope="package")
def front_end(stand_in: FakeVllm) -> Iterator[str]:
    with listening(create_app([stand_in.url], 562.5, settings=Settings(keep_alive_s=0.2))) as url:
        yield url


@pytest.fixture
def url(front_end: str) -> str:
    """Of the front-end, which an earlier test may have seen its engine fail."""
    wait_until_ready(front_end)
    return front_end


@pytest.fixture
def vllm(stand_in: FakeVllm) -> FakeVllm:
    """The stand-in, as if it had just started."""
    for field in dataclasses.fields(FakeVllm):
        if field.name != "url":
            fresh = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
            setattr(stand_in, field.name, fresh)
    return stand_in
