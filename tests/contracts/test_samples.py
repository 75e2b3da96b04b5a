"""What one bad sample does to a request, and a bad answer to everybody else."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from kinetics_serve.api.app import create_app
from kinetics_serve.engine.upstream import Patience
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, PROMPT_TOKENS
from tests.scripted_upstream import STREAM, Break, Piece, Scripted, event, head, sample, scripted, token, whole
from tests.serving import metric, serving

PATIENCE = Patience(first_token_s=600.0, token_s=600.0)
VOTE: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is 7 times 8?"}],
    "max_tokens": 20,
    "kinetics": {
        "budget": {"samples": 4},
        "strategy": "best_of_n",
        "max_samples": 4,
        "include_samples": True,
        "answer": {"extractor": "number"},
    },
}
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": -3, "total_tokens": 0}
ONE: dict[str, Any] = {"budget": {"samples": 1}, "strategy": "single", "include_samples": True}


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        yield upstream


@pytest.fixture
def app(upstream: Scripted) -> FastAPI:
    return create_app([upstream.url], PAPER_B200, patience=PATIENCE)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        yield client


def shorten_patience(app: FastAPI, token_s: float) -> None:
    (engine,) = app.state.services.pool.upstreams
    engine.patience = replace(PATIENCE, token_s=token_s)


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=VOTE | fields)


DRIP: list[Piece] = [b":", 0.1] * 6000
SILENCE: list[Piece] = [600.0]
SILENT = ("silence", "a byte a while")

FAILURES: dict[str, Sequence[Piece]] = {
    "error event": [STREAM, token("5", 1), event({"error": {"message": "out of memory", "code": 500}})],
    "refusal event": [STREAM, token("5", 1), event({"error": {"message": "no such token", "code": 400}})],
    "status 500": [whole({"error": {"message": "a bug", "code": 500}}, "500 Internal Server Error")],
    "status 503": [whole({"error": {"message": "busy"}}, "503 Service Unavailable", "retry-after: 9")],
    "redirect": [head("302 Found", "location: /elsewhere")],
    "lost connection": [STREAM, token("5", 1), 0.05, Break()],
    "cut short": [STREAM, token("5", 1)],
    "silence": [STREAM, token("5", 1), *SILENCE],
    "a byte a while": [STREAM, token("5", 1), *DRIP],
    "negative usage": [STREAM, event({"choices": [{"index": 0, "delta": {"content": "5"}}], "usage": USAGE})],
    "no usage": [STREAM, event({"choices": [{"index": 0, "delta": {"content": "5"}, "finish_reason": "stop"}]})],
    "a list for content": [STREAM, event({"choices": [{"index": 0, "delta": {"content": ["5"]}}]})],
    "no JSON": [STREAM, event(b"<html>")],
    "no stream": [whole({"choices": []})],
    "given up": [STREAM, token("5", 1, "abort"), event(b"[DONE]")],
    "numbers far too large": [STREAM, event(b'{"choices": [], "usage": {"completion_tokens": 1e999}}')],
    "deep nesting": [STREAM, event(b'{"choices": ' + b"[" * 100_000)],
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_sample_that_fails_leaves_the_vote_to_the_others_and_is_on_the_bill(
    upstream: Scripted, app: FastAPI, client: httpx.AsyncClient, failure: str
) -> None:
    if failure in SILENT:
        shorten_patience(app, 1.5)
    upstream.says(sample("56"), FAILURES[failure], sample("56"))
    response = await ask(client)
    assert response.status_code == 200, response.text
    bill = response.json()["kinetics"]
    assert bill["answer"] == "56"
    assert [vote["count"] for vote in bill["votes"]] == [3]
    assert (bill["samples_started"], bill["samples_finished"], bill["samples_failed"]) == (4, 3, 1)
    assert bill["no_votes"] == {"failed": 1}
    (failed,) = (each for each in bill["samples"] if each["status"] == "failed")
    assert failed["error"]["code"]
    assert failed["error"]["message"]
    assert 0 < bill["spent_eflops"] <= bill["budget_eflops"]
    assert (await client.get("/ready")).status_code == 200  # nobody else pays for it
    assert await metric(client, "kinetics_inflight_samples") == 0


@pytest.mark.parametrize("failure", FAILURES)
async def test_where_nothing_is_left_the_request_fails_and_says_why(
    upstream: Scripted, app: FastAPI, client: httpx.AsyncClient, failure: str
) -> None:
    if failure in SILENT:
        shorten_patience(app, 0.3)
    upstream.says(FAILURES[failure])
    for kinetics in (ONE, VOTE["kinetics"]):
        response = await ask(client, kinetics=kinetics)
        expected = {"refusal event": 400, "silence": 504, "a byte a while": 504}.get(failure, 503)
        assert response.status_code == expected, response.text
        assert (response.headers.get("retry-after") == "9") == (failure == "status 503")
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("failure", "charged"), [("negative usage", 20), ("a list for content", 20), ("error event", 8), ("status 500", 0)]
)
async def test_a_failed_sample_is_charged_what_it_may_have_cost(
    upstream: Scripted, client: httpx.AsyncClient, failure: str, charged: int
) -> None:
    upstream.says(sample("56"), FAILURES[failure], sample("56"))
    samples = (await ask(client)).json()["kinetics"]["samples"]
    assert [each["tokens"] for each in samples if each["status"] == "failed"] == [charged]


async def test_a_request_that_is_refused_is_refused_once(upstream: Scripted, client: httpx.AsyncClient) -> None:
    upstream.says([whole({"error": {"message": "temperature must be at most 2", "code": 400}}, "400 Bad Request")])
    response = await ask(client)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "temperature must be at most 2")
    assert len(upstream.sent()) == 1


NO_TEXT: dict[str, tuple[list[bytes], str, str, Any]] = {
    "only a thought": ([token(None, 1, reasoning="hm"), token("", 2, "stop")], "stop", "reasoning", "hm"),
    "a thought that was cut": ([token(None, 1, reasoning="hm"), token("", 2, "length")], "length", "reasoning", "hm"),
    "a refusal": ([token(None, 1, refusal="I can't"), token("", 2, "stop")], "stop", "refusal", "I can't"),
    "no calls": ([token("", 1), token("", 2, "tool_calls")], "tool_calls", "content", ""),
    "filtered": ([token("", 1), token("", 2, "content_filter")], "content_filter", "content", ""),
}


@pytest.mark.parametrize("kind", NO_TEXT)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_sample_without_text_keeps_its_own_finish_reason_and_all_that_it_has(
    upstream: Scripted, client: httpx.AsyncClient, kind: str, stream: bool
) -> None:
    events, finish, field, value = NO_TEXT[kind]
    upstream.says([STREAM, *events, event(b"[DONE]")])
    response = await ask(client, stream=stream, kinetics=VOTE["kinetics"] | {"progress": False})
    if stream:
        assert f'"finish_reason":"{finish}"' in response.text
        assert field == "content" or value in response.text
    else:
        choice = response.json()["choices"][0]
        assert choice["finish_reason"] == finish
        assert choice["message"][field] == value
        assert set(response.json()["kinetics"]["no_votes"]) <= {"empty", "cut_off"}


@pytest.mark.parametrize("end", [[], SILENCE, [0.05, Break()], [event(b"[DONE]"), *SILENCE]])
async def test_a_finish_reason_is_the_end_whatever_follows(
    upstream: Scripted, client: httpx.AsyncClient, end: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinetics_serve.engine.sample_stream.AFTERWARDS_S", 0.2)
    upstream.says([STREAM, token("56", 1), token("", 2, "stop"), *end])
    async with asyncio.timeout(60):
        bill = (await ask(client)).json()["kinetics"]
    assert (bill["answer"], bill["samples_finished"], bill["samples_failed"]) == ("56", 4, 0)


DONE = event(b"[DONE]")
ERROR = event({"error": {"message": "the usage could not be counted", "code": 500}})
TOTAL = event({"choices": [], "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 5}})
MORE = event({"choices": [{"index": 0, "delta": {"content": " 99"}, "finish_reason": "length"}]})
AFTER_THE_END: dict[str, tuple[list[bytes], int]] = {
    "done twice": ([DONE, DONE], 2),
    "data after done": ([DONE, event({"cost": 1})], 2),
    "usage after done": ([DONE, TOTAL], 2),
    "an error after done": ([DONE, ERROR], 2),
    "no JSON": ([event(b"pong"), TOTAL, DONE], 5),
    "null": ([event(b"null"), TOTAL, DONE], 5),
    "an error": ([ERROR, TOTAL, DONE], 5),
    "usage that makes no sense": ([event({"usage": {"completion_tokens": -1}}), TOTAL, DONE], 5),
    "more text": ([MORE, TOTAL, DONE], 5),
}


@pytest.mark.parametrize("kind", AFTER_THE_END)
@pytest.mark.parametrize("pieces", ["one", "one an event"])
async def test_after_a_samples_end_only_usage_counts_however_it_arrives(
    upstream: Scripted, client: httpx.AsyncClient, kind: str, pieces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinetics_serve.engine.sample_stream.AFTERWARDS_S", 600)
    tail, tokens = AFTER_THE_END[kind]
    said = [token("56", 1), token("", 2, "stop"), *tail]
    apart: list[Piece] = [part for each in said for part in (each, 0.02)]
    upstream.says([STREAM, *(apart if pieces != "one" else [b"".join(said)])])
    bill = (await ask(client)).json()["kinetics"]
    assert (bill["answer"], bill["samples_finished"], bill["samples_failed"]) == ("56", 4, 0)
    assert {each["tokens"] for each in bill["samples"]} == {tokens}
    assert {each["text"] for each in bill["samples"]} == {"56"}


async def test_a_server_that_goes_on_talking_after_the_end_is_left(
    upstream: Scripted, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinetics_serve.engine.sample_stream.AFTERWARDS_S", 0.3)
    talk: list[Piece] = [b": still here\n\n", 0.1]
    upstream.says([STREAM, token("56", 1), token("", 2, "stop"), *talk * 6000])
    async with asyncio.timeout(60):
        assert (await ask(client)).json()["kinetics"]["samples_finished"] == 4


async def test_an_empty_finish_reason_is_no_end(upstream: Scripted, client: httpx.AsyncClient) -> None:
    upstream.says([STREAM, token("5", 1, ""), token("6", 2, ""), token("", 3, "stop"), DONE])
    bill = (await ask(client)).json()["kinetics"]
    assert (bill["answer"], bill["samples_finished"]) == ("56", 4)
    upstream.says([STREAM, token("56 and", 1, ""), 0.05, Break()])
    assert (await ask(client)).status_code == 503


@pytest.mark.parametrize("counts", [True, False])
async def test_a_sample_beyond_its_max_tokens_is_cut_and_its_request_closed(
    upstream: Scripted, client: httpx.AsyncClient, counts: bool
) -> None:
    endless = [each for number in range(1, 2000) for each in (token("word ", number if counts else 1), 0.002)]
    upstream.says([STREAM, *endless])
    response = (await ask(client, kinetics=ONE, max_tokens=10)).json()
    assert response["choices"][0]["finish_reason"] == "length"
    assert response["usage"]["completion_tokens"] == 10
    assert len(response["choices"][0]["message"]["content"].split()) <= (10 if counts else 27)
    async with asyncio.timeout(60):
        while upstream.open:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
async def test_line_ends_and_comments_make_no_difference(
    upstream: Scripted, client: httpx.AsyncClient, line_end: bytes
) -> None:
    said = b": hello\n\n" + b"".join([b"id: 3\n" + token("56", 1), token("", 2, "stop"), event(b"[DONE]")])
    said = said.replace(b"\n", line_end)
    upstream.says([STREAM, *[said[at : at + 7] for at in range(0, len(said), 7)]])
    bill = (await ask(client)).json()["kinetics"]
    assert (bill["answer"], bill["samples_finished"]) == ("56", 4)


@pytest.mark.parametrize("drip", [b":", b": keep-alive\n\n", b"x", b"\n"])
async def test_a_plain_stream_that_says_nothing_is_given_up_however_many_bytes_it_sends(
    upstream: Scripted, app: FastAPI, client: httpx.AsyncClient, drip: bytes
) -> None:
    shorten_patience(app, 0.3)
    each: list[Piece] = [drip, 0.1]
    upstream.says([STREAM, token("5", 1), *each * 6000])
    async with asyncio.timeout(60):
        response = await ask(client, kinetics=None, stream=True)
    assert "engine_timeout" in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("count", ["abc", -3, 2.5, None, True])
async def test_a_prompt_whose_length_an_engine_cannot_tell_is_no_error_of_ours(
    upstream: Scripted, client: httpx.AsyncClient, count: Any
) -> None:
    upstream.says([whole({"count": count})], path="/tokenize")
    response = await ask(client)
    assert response.status_code == 503, response.text
    assert "/tokenize" in response.json()["error"]["message"]
    assert await metric(client, "kinetics_server_errors_total") == 1


async def test_a_total_that_leaves_the_prompt_out_is_no_reason_to_lose_a_sample(
    upstream: Scripted, client: httpx.AsyncClient
) -> None:
    total = event({"choices": [], "usage": {"completion_tokens": 3}})
    upstream.says([STREAM, token("56", 1), token("", 3, "stop"), total, event(b"[DONE]")])
    bill = (await ask(client)).json()["kinetics"]
    assert (bill["answer"], bill["samples_failed"]) == ("56", 0)


@pytest.mark.parametrize("length", ["4096", -1, 2.5])
async def test_a_context_that_makes_no_sense_is_not_known(tmp_path: Path, length: Any) -> None:
    async with scripted(tmp_path) as upstream:
        card = {"id": MODEL, "object": "model", "root": str(tmp_path), "max_model_len": length}
        upstream.says([whole({"object": "list", "data": [card]})], path="/v1/models")
        upstream.says(sample("56"))
        async with serving(create_app([upstream.url], PAPER_B200, patience=PATIENCE)) as client:
            response = await ask(client)
    assert response.status_code == 200, response.text
