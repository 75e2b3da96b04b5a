"""Clients that leave and input that is wrong."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import LONG, MODEL, Server, until


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_engine(server: Server, stream: bool) -> None:
    before = server.metric("kinetics_eflops_total")
    cancelled = server.metric("kinetics_requests_total", outcome="cancelled")
    async with httpx.AsyncClient(timeout=300) as client:
        request = asyncio.create_task(client.post(f"{server.url}/v1/chat/completions", json=LONG | {"stream": stream}))
        await until(lambda: server.engine_running() == 4, 60)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
    await until(lambda: server.metric("kinetics_inflight_samples") == 0, 30)  # long before they would have ended
    await until(lambda: server.engine_running() == 0, 30)
    await until(lambda: server.metric("kinetics_requests_total", outcome="cancelled") - cancelled == 1, 30)
    assert server.metric("kinetics_eflops_total") > before  # what had been generated is on the bill


async def test_a_plain_stream_that_is_left_frees_the_engine(server: Server) -> None:
    plain = {key: value for key, value in LONG.items() if key != "kinetics"} | {"stream": True}
    async with (
        httpx.AsyncClient(timeout=300) as client,
        client.stream("POST", f"{server.url}/v1/chat/completions", json=plain) as response,
    ):
        lines = response.aiter_lines()  # kept: when it goes, httpx closes the connection
        await anext(lines)
        await until(lambda: server.engine_running() == 1, 30)
    await until(lambda: server.engine_running() == 0, 30)


MESSAGES = [{"role": "user", "content": "hi"}]


def budgeted(**kinetics: Any) -> dict[str, Any]:
    return {"messages": MESSAGES, "max_tokens": 20, "kinetics": {"budget": {"samples": 2}} | kinetics}


def chat(**fields: Any) -> dict[str, Any]:
    return budgeted() | fields


BAD: dict[str, tuple[dict[str, Any] | bytes, int, str, str]] = {
    "no body": (b"", 400, "invalid_request", "not valid JSON"),
    "no JSON": (b"{not json", 400, "invalid_request", "not valid JSON"),
    "no object": (b"[1]", 400, "invalid_request", "must be a JSON object"),
    "NaN": (b'{"kinetics": {"budget": {"eflops": NaN}}}', 400, "invalid_request", "not valid JSON"),
    "1e400": (b'{"messages": [], "kinetics": {"budget": {"eflops": 1e400}}}', 400, "invalid_request", "infinity"),
    "deep JSON": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_request", "recursion"),
    "1e400 elsewhere": (
        b'{"messages": [], "temperature": 1e400, "kinetics": {"budget": {"samples": 1}}}',
        400,
        "invalid_request",
        "infinity",
    ),
    "negative budget": (budgeted(budget={"eflops": -1}), 400, "invalid_request", "greater than 0"),
    "zero budget": (budgeted(budget={"tokens": 0}), 400, "invalid_request", "greater than 0"),
    "text budget": (budgeted(budget={"eflops": "much"}), 400, "invalid_request", "valid number"),
    "two budgets": (budgeted(budget={"eflops": 1e12, "samples": 1}), 400, "invalid_request", "exactly one"),
    "empty budget": (budgeted(budget={}), 400, "invalid_request", "exactly one"),
    "no budget": ({"messages": MESSAGES, "kinetics": {}}, 400, "invalid_request", "budget is missing"),
    "tiny budget": (budgeted(budget={"eflops": 5}), 400, "budget_too_small", "at least"),
    "accuracy": (budgeted(budget={"accuracy": 0.8}), 400, "invalid_request", "calibration"),
    "kinetics no object": (chat(kinetics=7), 400, "invalid_request", "kinetics"),
    "unknown option": (budgeted(samples=4), 400, "invalid_request", "samples"),
    "unknown strategy": (budgeted(strategy="luck"), 400, "invalid_request", "majority_vote"),
    "unknown extractor": (budgeted(answer={"extractor": "psychic"}), 400, "invalid_request", "boxed"),
    "bad pattern": (budgeted(answer={"extractor": "regex", "pattern": "("}), 400, "invalid_request", "RE2"),
    "no pattern": (budgeted(answer={"extractor": "regex"}), 400, "invalid_request", "needs a pattern"),
    "stop_confidence": (budgeted(stop_confidence=1.5), 400, "invalid_request", "less than or equal to 1"),
    "deadline": (budgeted(deadline_s=-1), 400, "invalid_request", "greater than 0"),
    "max_samples": (budgeted(max_samples=0), 400, "invalid_request", "greater than or equal to 1"),
    "kv_budget": (budgeted(kv_budget=50), 400, "invalid_request", "state at least 112"),
    "unknown model": (chat(model="gpt-9"), 404, "model_not_found", MODEL),
    "model no text": (chat(model=7), 400, "invalid_request", "model must be a text"),
    "no messages": ({"kinetics": {"budget": {"samples": 1}}}, 400, "invalid_request", "messages"),
    "messages no list": (chat(messages="hi"), 400, "invalid_request", "messages"),
    "message no object": (chat(messages=["hi"]), 400, "invalid_request", "messages.0"),
    "message without role": (chat(messages=[{"content": "hi"}]), 400, "invalid_request", "role"),
    "image": (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]),
        400,
        "invalid_request",
        "text only",
    ),
    "n": (chat(n=3), 400, "invalid_request", "max_samples"),
    "max_tokens no number": (chat(max_tokens="ten"), 400, "invalid_request", "whole number"),
    "max_tokens negative": (chat(max_tokens=-5), 400, "invalid_request", "whole number"),
    "stream no boolean": (chat(stream="yes"), 400, "invalid_request", "true or false"),
    "temperature": (chat(temperature="hot"), 400, "invalid_request", "temperature"),
    "greedy vote": (
        budgeted(strategy="majority_vote") | {"temperature": 0},
        400,
        "invalid_request",
        "temperature above 0",
    ),
    "prompt longer than the context": (
        chat(messages=[{"role": "user", "content": "word " * 9000}]),
        400,
        "invalid_request",
        "shorten it",
    ),
    "10 MB prompt": (chat(messages=[{"role": "user", "content": "x" * 10_000_000}]), 413, "invalid_request", "larger"),
    "surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_request", "JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_an_error_that_says_what_to_do(server: Server, name: str) -> None:
    content, status, code, words = BAD[name]
    sent = {"content": content} if isinstance(content, bytes) else {"json": content}
    headers = {"content-type": "application/json"}
    response = httpx.post(f"{server.url}/v1/chat/completions", **sent, headers=headers, timeout=60)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert words in error["message"]
    assert "Traceback" not in response.text
    assert len(response.text) < 1500


@pytest.mark.parametrize("budget", ["nan", "-4e13", "1e400", "much", ""])
def test_a_bad_budget_header_is_refused(server: Server, budget: str) -> None:
    response = httpx.post(
        f"{server.url}/v1/chat/completions", json={"messages": MESSAGES}, headers={"X-Kinetics-Budget": budget}
    )
    assert response.status_code == 400
    assert "X-Kinetics-Budget" in response.json()["error"]["message"]


def test_a_bad_plain_request_gets_the_engines_own_words(server: Server) -> None:
    request = {"model": MODEL, "messages": MESSAGES, "temperature": "hot"}
    ours = httpx.post(f"{server.url}/v1/chat/completions", json=request)
    theirs = httpx.post(f"{server.engine_url}/v1/chat/completions", json=request)
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)])
def test_paths_and_methods_that_do_not_exist_get_the_envelope_too(
    server: Server, method: str, path: str, status: int
) -> None:
    response = httpx.request(method, server.url + path)
    assert response.status_code == status
    assert path in response.json()["error"]["message"]
