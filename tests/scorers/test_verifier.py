import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from kinetics_serve.scorers.scorer import ScorerFailed
from kinetics_serve.scorers.verifier import MAX_RESPONSE_BYTES, TRIES, Verifier, host_of

app = FastAPI()
calls: list[str] = []


@app.post("/{kind}")
async def verify(request: Request, kind: str) -> Response:
    calls.append(kind)
    body = await request.json()
    if kind == "length":
        return JSONResponse({"score": len(body["text"]), "more": body["answer"]})
    if kind == "second":
        return JSONResponse({"score": 7}) if len(calls) > 1 else JSONResponse({}, 503)
    if kind == "slow":
        await asyncio.sleep(600)
    answers = {
        "refuses": JSONResponse({}, 403),
        "breaks": JSONResponse({}, 500),
        "redirects": RedirectResponse("/length"),
        "huge": PlainTextResponse("x" * (MAX_RESPONSE_BYTES + 1)),
        "text": PlainTextResponse("good"),
        "true": JSONResponse({"score": True}),
        "nan": PlainTextResponse('{"score": NaN}'),
        "vast": PlainTextResponse('{"score": 1' + "0" * 400 + "}"),
    }
    return answers[kind]


@contextmanager
def serving() -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


async def score(url: str, timeout_s: float = 60) -> float:
    calls.clear()
    async with aiohttp.ClientSession() as client:
        verifier = Verifier(client, url, [{"role": "user", "content": "?"}], timeout_s=timeout_s, first_pause_s=0.01)
        return (await verifier.score("four", "4", 9)).value


async def test_the_program_sees_the_text_and_its_number_is_the_score(url: str) -> None:
    assert await score(f"{url}/length") == 4.0


async def test_a_failure_that_may_pass_is_tried_again(url: str) -> None:
    assert await score(f"{url}/second") == 7.0


@pytest.mark.parametrize(
    ("kind", "words", "tries"),
    [
        ("refuses", "HTTP 403", 1),
        ("redirects", "HTTP 307", 1),
        ("breaks", "HTTP 500", TRIES),
        ("slow", "no answer within 0.5 s", TRIES),
        ("huge", "sent more than", 1),
        ("text", "must answer with JSON", 1),
        ("true", "must answer with JSON", 1),
        ("nan", "must answer with JSON", 1),
        ("vast", "must answer with JSON", 1),
    ],
)
async def test_what_is_no_score_is_a_clear_failure(url: str, kind: str, words: str, tries: int) -> None:
    with pytest.raises(ScorerFailed, match=words):
        await score(f"{url}/{kind}", 0.5 if kind == "slow" else 60)
    assert len(calls) == tries


async def test_a_program_that_is_not_there_is_a_clear_failure() -> None:
    with pytest.raises(ScorerFailed, match="ClientConnectorError"):
        await score("http://127.0.0.1:9/score")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a.example/x", "a.example:80"),
        ("https://A.example", "a.example:443"),
        ("https://a.example:8443/", "a.example:8443"),
        ("http://[::1]:90/", "[::1]:90"),
    ],
)
def test_the_host_that_a_url_leads_to(url: str, host: str) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "ftp://a.example",
        "file:///etc/passwd",
        "http://",
        "http://u@a.example",
        "http://a:x/",
        "http://a.example/\n",
        "http://a.example/é",
        "http://a.example/" + "x" * 9000,
    ],
)
def test_what_is_no_url_of_a_verifier(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected a URL|Port could not"):
        host_of(url)
