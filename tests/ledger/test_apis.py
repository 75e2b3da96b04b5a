"""What tenants pay for vLLM's other APIs, and what of them they can't use."""

import asyncio
from typing import Any

import httpx
import pytest

from kinetics_serve.passthrough.dialects import UNSHOWN_TOKENS
from tests.fake_vllm import MODEL, FakeVllm
from tests.ledger.server import FrontEnd, bearer, check_error, leave

RESPONSE: dict[str, Any] = {"model": MODEL, "input": "hello", "max_output_tokens": 100}
MESSAGE: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 100,
    "stop_sequences": ["x"],
}
ASKS = [("/v1/responses", RESPONSE), ("/v1/messages", MESSAGE)]


@pytest.mark.parametrize(("path", "body"), ASKS)
@pytest.mark.parametrize("stream", [False, True])
def test_they_are_metered_by_their_usage(server: FrontEnd, path: str, body: dict[str, Any], stream: bool) -> None:
    key = server.key(f"{path}-{stream}", concurrency=1)
    for _ in range(3):  # each is settled before its client sees the end
        answer = server.ask(key, body | {"stream": stream}, path)
        assert answer.status_code == 200, answer.text
    theirs = httpx.post(server.fake.url + path, json=body | {"stream": stream})
    assert answer.content == theirs.content
    assert server.spent(key) == {"pass_through": 3 * server.eflops(8, cached=4)}


@pytest.mark.parametrize(("path", "body"), ASKS)
async def test_a_client_that_leaves_a_stream_pays_for_what_it_may_have_seen(
    server: FrontEnd, path: str, body: dict[str, Any]
) -> None:
    """Their streams tell no usage before the end. Each token of the stand-in's has 5 bytes."""
    key = server.key(f"{path}-leaver")
    server.fake.token_s, server.fake.tokens = 0.05, 2000
    long = body | {"max_tokens": 2000} if path == "/v1/messages" else body | {"max_output_tokens": 2000}
    await leave(server, key, long | {"stream": True}, path, events=15)  # of which three or fewer are no tokens
    spent = (await asyncio.to_thread(server.spent, key))["pass_through"]
    assert server.eflops(12) <= spent <= server.eflops(UNSHOWN_TOKENS + 1 + server.fake.generated * 5)


@pytest.mark.parametrize(("path", "body"), ASKS)
async def test_where_tokens_may_be_hidden_it_pays_the_reservation(
    server: FrontEnd, path: str, body: dict[str, Any]
) -> None:
    key = server.key(f"{path}-hidden")
    server.fake.token_s, server.fake.tokens = 0.2, 100
    tool = {"type": "function", "name": "f", "parameters": {}, "input_schema": {}}
    await leave(server, key, body | {"stream": True, "tools": [tool]}, path, events=2)
    assert await asyncio.to_thread(server.spent, key) == {"pass_through": server.eflops(100)}


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_their_worst_case_is_reserved(server: FrontEnd, path: str, body: dict[str, Any]) -> None:
    key = server.key(f"{path}-limited", request_eflops=server.eflops(50))
    check_error(server.ask(key, body, path), 400, "invalid_request", str(server.eflops(100)))
    assert server.fake.sent(path) == []


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_each_tenant_has_its_own_part_of_the_prefix_cache(server: FrontEnd, path: str, body: dict[str, Any]) -> None:
    for name in ("one", "other"):
        server.ask(server.key(f"{path}-{name}"), body, path)
    one, other = (sent["cache_salt"] for sent in server.fake.sent(path))
    assert one != other


def test_a_tools_schema_that_looks_like_usage_is_none(server: FrontEnd) -> None:
    key = server.key("schema")
    tool = {"type": "function", "name": "f", "parameters": {"input_tokens": 1, "output_tokens": 1, "usage": {}}}
    for stream in (False, True):
        assert server.ask(key, RESPONSE | {"tools": [tool], "stream": stream}, "/v1/responses").status_code == 200
    assert server.spent(key) == {"pass_through": 2 * server.eflops(8, cached=4)}


def test_responses_of_tenants_are_not_stored(server: FrontEnd) -> None:
    key = server.key("store")
    assert server.ask(key, RESPONSE | {"store": True}, "/v1/responses").status_code == 200
    assert server.fake.sent("/v1/responses")[0]["store"] is False
    refused = server.ask(key, RESPONSE | {"previous_response_id": "resp_1"}, "/v1/responses")
    check_error(refused, 400, "invalid_request", "previous_response_id")


@pytest.mark.parametrize(("path", "body"), [*ASKS, ("/v1/embeddings", {"input": "a"}), ("/tokenize", {"prompt": "a"})])
def test_they_need_a_key_and_a_model_that_the_tenant_may_use(server: FrontEnd, path: str, body: dict[str, Any]) -> None:
    check_error(server.ask(None, body, path), 401, "invalid_api_key")
    key = server.key(f"{path}-models", models=["another"])
    check_error(server.ask(key, body, path), 404, "model_not_found", "another")
    assert server.fake.requests == []


def test_what_generates_without_a_bound_is_refused(server: FrontEnd) -> None:
    files = {"file": ("a.wav", b"sound")}
    answer = httpx.post(f"{server.url}/v1/audio/transcriptions", files=files, headers=bearer(server.key("audio")))
    check_error(answer, 403, "invalid_request", "quota")
    assert server.fake.requests == []


def test_embeddings_pass_and_cost_nothing(server: FrontEnd, fake: FakeVllm) -> None:
    key = server.key("embeddings")
    answer = server.ask(key, {"model": MODEL, "input": "a"}, "/v1/embeddings")
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 1
    assert set(fake.sent("/v1/embeddings")[-1]) == {"path", "model", "input", "cache_salt"}
    assert set(server.ask(key, {"model": MODEL, "tokens": [1]}, "/detokenize").json()) == {"model", "tokens"}
    assert server.spent(key) == {}
