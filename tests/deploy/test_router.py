"""vLLM's production router between a front-end and engines: budgets and bills go through it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import free_port
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.ledger.server import FrontEnd, front_end

pytestmark = pytest.mark.skipif(find_spec("vllm_router") is None, reason="no vllm-router here: pip install vllm-router")

CHAT = "/v1/chat/completions"
VOTE: dict[str, Any] = {"budget": {"samples": 3}, "strategy": "best_of_n", "max_samples": 3, "kv_budget": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("router")


@pytest.fixture(scope="module")
def engines(folder: Path) -> Iterator[list[FakeVllm]]:
    with ExitStack() as stack:
        both = [stack.enter_context(running_fake_vllm(folder)) for _ in range(2)]
        for engine in both:
            engine.kv_budget = 512
        yield both


@pytest.fixture(scope="module")
def router(engines: list[FakeVllm]) -> Iterator[str]:
    """Its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", *(engine.url for engine in engines), "--policy", "round_robin"]
    process = subprocess.Popen([*command, "--prometheus-port", str(free_port())], env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None, "the router ended"
            assert time.monotonic() < deadline, "the router does not answer"
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def server(router: str, folder: Path) -> Iterator[FrontEnd]:
    with front_end(FakeVllm(router), f"sqlite:///{folder}/ledger.db", folder, folder / "log") as running:
        yield running


def test_a_budgeted_request_gets_its_samples_from_all_engines_and_its_bill_is_booked(
    server: FrontEnd, engines: list[FakeVllm]
) -> None:
    key = server.key("acme")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100, "seed": 5}
    answer = server.ask(key, body | {"kinetics": VOTE})
    assert answer.status_code == 200, answer.text
    bill = answer.json()["kinetics"]
    assert (bill["kv_budget"], bill["samples_finished"], bill["completion_tokens"]) == (256, 3, 24)
    assert server.spent(key) == {"best_of_n": bill["spent_eflops"]}
    samples = [sample for engine in engines for sample in engine.sent(CHAT)]
    assert sorted(sample["seed"] for sample in samples) == [5, 6, 7]
    assert all(engine.sent(CHAT) for engine in engines)
    for sample in samples:
        assert sample["vllm_xargs"] == {"kv_budget": 256}
        assert sample["cache_salt"]  # a tenant's own


def test_a_plain_stream_passes_and_is_booked(server: FrontEnd) -> None:
    key = server.key("umbrella")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100, "stream": True}
    answer = server.ask(key, body)
    assert answer.status_code == 200, answer.text
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert server.spent(key) == {"pass_through": server.eflops(8, cached=4)}
