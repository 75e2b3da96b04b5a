"""What of vLLM's API is open to clients, and what is not."""

import time

import httpx
import pytest

from kinetics_serve.api.routes.engine import AUDIO, NOTHING_GENERATED, ONE_FORWARD_PASS
from tests.fake_vllm import MODEL, OTHER_MODEL, FakeVllm

CONTENT = b'{"model": "fake",  "input": ["a", "b"], "prompt": "p", "odd": 1.50}'
CLOSED = (
    "/sleep",
    "/wake_up",
    "/reset_prefix_cache",
    "/collective_rpc",
    "/invocations",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/start_profile",
    "/pause",
    "/update_weights",
    "/scale_elastic_ep",
    "/inference/v1/generate",
    "/abort_requests",
    "/server_info",
)


OWN_ROUTES = ("/tokenize", "/v1/messages/count_tokens", "/v1/embeddings", "/pooling", "/classify", "/score")
"""The stand-in answers these itself; it echoes the others."""


@pytest.mark.parametrize("path", sorted({*NOTHING_GENERATED, *ONE_FORWARD_PASS} - {*OWN_ROUTES}))
def test_what_is_open_passes_byte_for_byte(url: str, vllm: FakeVllm, path: str) -> None:
    answer = httpx.post(url + path, content=CONTENT, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["x-echo"] == path[1:]
    assert answer.headers["content-type"] == "application/json"
    assert vllm.requests == [{"path": path, "content": CONTENT}]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", [*CLOSED, "/v1/embeddings/../../sleep", "//sleep", "/v1/embeddings%2f..%2f..%2fsleep"])
def test_what_steers_the_engine_is_closed(url: str, vllm: FakeVllm, path: str, method: str) -> None:
    answer = httpx.request(method, url + path, content=None if method == "GET" else CONTENT)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["message"]
    assert vllm.requests == []


@pytest.mark.parametrize("path", AUDIO)
def test_an_uploaded_file_passes_byte_for_byte(url: str, vllm: FakeVllm, path: str) -> None:
    sound = bytes(range(256)) * 40
    request = httpx.Request("POST", url + path, files={"file": ("a.wav", sound)}, data={"model": OTHER_MODEL})
    content = request.read()
    with httpx.Client() as client:
        answer = client.send(request)
    assert answer.content == content
    assert sound in answer.content
    unknown = httpx.post(url + path, files={"file": ("a.wav", sound)}, data={"model": "nobody's"})
    assert unknown.status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_api_passes_byte_for_byte(url: str, vllm: FakeVllm, stream: bool) -> None:
    body = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    assert (
        httpx.post(f"{url}/v1/messages", json=body).content == httpx.post(f"{vllm.url}/v1/messages", json=body).content
    )


def test_requests_without_a_budget_are_counted(url: str, vllm: FakeVllm) -> None:
    def counted(outcome: str) -> float:
        labels = f'kinetics_requests_total{{model="{MODEL}",outcome="{outcome}",strategy="pass_through"}}'
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(labels))

    question = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    before = {outcome: counted(outcome) for outcome in ("completed", "rejected", "cancelled")}
    for body in (question, question | {"stream": True}, question | {"temperature": 9}):
        httpx.post(f"{url}/v1/chat/completions", json=body)
    vllm.tokens, vllm.token_s = 4000, 0.1  # for longer than anybody stays
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=question | {"stream": True}) as answer:
        next(answer.iter_raw())
    expected = {"completed": 2, "rejected": 1, "cancelled": 1}
    deadline = time.monotonic() + 60
    while {outcome: counted(outcome) - before[outcome] for outcome in before} != expected:
        assert time.monotonic() < deadline
        time.sleep(0.05)
