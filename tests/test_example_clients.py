"""The clients in examples/, each run as it stands."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.e2e.conftest import free_port
from tests.fake_vllm import MODEL, FakeVllm
from tests.front_ends import listening

CLIENTS = Path(__file__).parents[1] / "examples" / "clients"
MOST_LINES = 40


def output(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def says_56(seed: int) -> str:
    return "56 "


def test_each_is_short() -> None:
    for file in CLIENTS.iterdir():
        assert len(file.read_text().splitlines()) < MOST_LINES, file.name


def test_curl(url: str, vllm: FakeVllm) -> None:
    vllm.word = says_56
    plan, answer = map(json.loads, output("bash", CLIENTS / "curl.sh", url).splitlines())
    assert plan["full_length_samples"] >= 16
    assert answer["kinetics"]["answer"] == "56"
    assert answer["kinetics"]["budget_eflops"] == plan["budget_eflops"]


def test_openai_sdk(url: str, vllm: FakeVllm) -> None:
    vllm.word = says_56
    told = output(sys.executable, CLIENTS / "openai_sdk.py", url)
    assert told.startswith("56 56 ")
    assert "answer 56 (consensus), 4 samples" in told


def test_langchain(url: str, vllm: FakeVllm) -> None:
    vllm.word = says_56
    text, usage = output(sys.executable, CLIENTS / "langchain_client.py", url, MODEL).splitlines()
    assert text.startswith("56 56")
    assert f"'output_tokens': {vllm.tokens}" in usage


@pytest.fixture
def verifier() -> Iterator[str]:
    """Its host and port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(CLIENTS / "verifier.py"), str(port)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "the verifier did not start"
            try:
                socket.create_connection(("localhost", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the verifier did not start"
                time.sleep(0.05)
        yield f"localhost:{port}"
    finally:
        process.kill()
        process.wait()


def test_verifier(vllm: FakeVllm, verifier: str) -> None:
    vllm.word = lambda seed: "56 " if seed == 2 else "54 "
    app = create_app([vllm.url], PAPER_B200, settings=Settings(verifier_hosts=frozenset({verifier})))
    scorer = {"kind": "http", "url": f"http://{verifier}/score"}
    kinetics = {"budget": {"samples": 4}, "strategy": "best_of_n", "max_samples": 4, "scorer": scorer}
    messages = [{"role": "user", "content": "What is 7 times 8?"}]
    body = {"messages": messages, "max_tokens": 40, "seed": 0, "kinetics": kinetics | {"include_samples": True}}
    with listening(app) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()
    assert answer["kinetics"]["answer"] == "56"
    assert [sample["score"] for sample in answer["kinetics"]["samples"]] == [0, 0, 1, 0]
