"""A front-end on a real socket, in front of the stand-in for vLLM, and Triton's interpreter."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import hypothesis
import pytest
from fastapi import FastAPI
from httpx._config import DEFAULT_TIMEOUT_CONFIG

from kinetics_serve.api.app import create_app
from kinetics_serve.engine import client
from kinetics_serve.engine.circuit import Circuit
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import FakeVllm, running_fake_vllm
from tests.front_ends import listening, wait_until_ready

# A machine that does much else may stand still for seconds, and hypothesis allows an example a fifth of one, httpx an
# answer five. Where time is what a test is about, it states it.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
client.CONNECT_TIMEOUT_S = 60.0  # else a front-end that stands still itself takes its engine for lost
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.write = 60.0

# pytest-xdist tells its workers a terminal's width, and a console would keep to it: tests that want one say so.
os.environ.pop("COLUMNS", None)

# Triton's kernels run in its interpreter here, on CPU tensors. Whether they do is settled when they are imported.
if find_spec("triton"):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.experimental.gluon  # noqa: F401  the interpreter imports it later otherwise, and it asks too

        import sparse_backend.kernels.triton  # noqa: F401


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("stand-in")) as fake:
        yield fake


@pytest.fixture(scope="session")
def front_end(stand_in: FakeVllm) -> Iterator[tuple[FastAPI, str]]:
    app = create_app([stand_in.url], PAPER_B200, settings=Settings(keep_alive_s=0.2))
    with listening(app) as url:
        yield app, url


@pytest.fixture
def vllm(stand_in: FakeVllm) -> Iterator[FakeVllm]:
    """The stand-in, before and after the test as if it had just started: others wait for it to be well."""
    stand_in.restart()
    yield stand_in
    stand_in.restart()


@pytest.fixture
def url(front_end: tuple[FastAPI, str]) -> str:
    """Of the front-end, which has forgotten how its engine failed an earlier test."""
    app, url = front_end
    for upstream in app.state.services.pool.upstreams:
        before, upstream.circuit = upstream.circuit, Circuit()
        upstream.circuit.openings = before.openings  # a counter shows them, and counters never fall
    wait_until_ready(url)
    return url
