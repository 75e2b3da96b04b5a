"""How the answer to a request without a budget ends, with a ledger and without, whatever the upstream does then."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import OutboxFile
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL
from tests.ledger.server import run_command
from tests.scripted_upstream import Break, Piece, Scripted, event, head, scripted, token
from tests.serving import reaches, serving

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
STREAMED = CHAT | {"stream": True}
BEGUN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"


def chunked(*pieces: bytes) -> list[Piece]:
    return [b"%x\r\n" % len(piece) + piece + b"\r\n" for piece in pieces]


def usage(number: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": number}})


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Scripted]:
    async with scripted(tmp_path) as upstream:
        yield upstream


@asynccontextmanager
async def front_end(
    upstream: Scripted, folder: Path, metered: bool, settings: Settings | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    if not metered:
        async with serving(create_app([upstream.url], PAPER_B200, settings=settings), socket=True) as client:
            yield client
        return
    path = str(folder / "ledger.db")
    await asyncio.to_thread(run_command, "tenants", "set", "acme", "--month-eflops", "1e18", "--ledger", path)
    key = await asyncio.to_thread(run_command, "keys", "create", "acme", "--ledger", path)
    outbox = Outbox(OutboxFile(folder / "outbox"))
    app = create_app([upstream.url], PAPER_B200, settings=settings, ledger=Ledger(Database(path)), outbox=outbox)
    async with serving(app, socket=True) as client:
        client.headers["authorization"] = f"Bearer {key.split()[-1]}"
        yield client


@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize("then", [[600.0], [0.01, Break()]], ids=["stays open", "breaks"])
async def test_a_stream_is_over_with_its_last_event(
    upstream: Scripted, tmp_path: Path, metered: bool, then: list[Piece]
) -> None:
    said = [token("56", 1), token("", 2, "stop"), usage(2), event(b"[DONE]"), b": bye\n\n"]
    upstream.says([BEGUN + b"\r\n", *chunked(*said), *then])
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    async with front_end(upstream, tmp_path, metered) as client:
        response = await client.post("/v1/chat/completions", json=STREAMED | options)
        assert response.content == b"".join(said)
        await reaches(client, "kinetics_requests_total", 1)
        requests = (await client.get("/metrics")).text
        assert 'outcome="completed"' in requests
        assert 'outcome="failed"' not in requests
        if metered:
            account = (await client.get("/v1/kinetics/usage")).json()
            assert (account["reserved_eflops"], account["running_requests"]) == (0, 0)
            assert account["month_spent_eflops"] > 0


@pytest.mark.parametrize("metered", [False, True])
async def test_of_a_stream_that_breaks_off_whole_events_arrive_and_then_the_error(
    upstream: Scripted, tmp_path: Path, metered: bool
) -> None:
    first = event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    upstream.says([BEGUN + b"\r\n", *chunked(first, token("b", 2)[:25]), 0.1, Break()])
    async with front_end(upstream, tmp_path, metered) as client:
        response = await client.post("/v1/chat/completions", json=STREAMED)
    events = [each for each in response.content.split(b"\n\n") if each]
    assert events[0] + b"\n\n" == first
    assert b"broke off" in events[1]
    assert events[2:] == [b"data: [DONE]"]


@pytest.mark.parametrize("then", [[0.05, Break()], [5.0]], ids=["breaks", "is silent"])
async def test_no_words_of_ours_stand_in_a_compressed_stream(
    upstream: Scripted, tmp_path: Path, then: list[Piece]
) -> None:
    compressing = zlib.compressobj(wbits=31)
    said = compressing.compress(token("a", 1)) + compressing.flush(zlib.Z_SYNC_FLUSH)
    upstream.says([BEGUN + b"content-encoding: gzip\r\n\r\n", *chunked(said), *then])
    received: list[bytes] = []

    async def read(client: httpx.AsyncClient) -> None:
        asked = {"accept-encoding": "gzip"}
        async with client.stream("POST", "/v1/chat/completions", json=STREAMED, headers=asked) as response:
            async for piece in response.aiter_raw():
                received.append(piece)

    async with front_end(upstream, tmp_path, False, Settings(max_deadline_s=0.5)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await read(client)
    assert b"".join(received) == said


@pytest.mark.parametrize("metered", [False, True])
async def test_the_servers_deadline_ends_a_stream_whose_engine_is_silent(
    upstream: Scripted, tmp_path: Path, metered: bool
) -> None:
    upstream.says([BEGUN + b"\r\n", *chunked(token("a", 1)), 600.0])
    async with front_end(upstream, tmp_path, metered, Settings(max_deadline_s=1.0)) as client:
        response = await client.post("/v1/chat/completions", json=STREAMED)
    assert "1 s, the server's deadline" in response.text
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("then", [[0.05, Break()], [600.0]], ids=["breaks", "is silent"])
async def test_a_whole_answer_that_breaks_off_is_one_line_in_the_log(
    upstream: Scripted, tmp_path: Path, caplog: pytest.LogCaptureFixture, then: list[Piece]
) -> None:
    upstream.says([head("200 OK", "content-type: application/json", length=1000) + b'{"choices":', *then])
    async with front_end(upstream, tmp_path, False, Settings(max_deadline_s=0.5)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json=CHAT)
        await reaches(client, "kinetics_load_ratio", 0)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not any(record.exc_info for record in told)
    (ours,) = [record for record in told if record.name.startswith("kinetics_serve.requests")]
    assert "/v1/chat/completions was broken off" in ours.getMessage()
