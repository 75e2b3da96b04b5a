"""The harness against a server that speaks OpenAI's API over a real socket, and samples by the request's seed."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from tenacity import wait_none

from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.upstream import Upstream
from kinetics_serve.evaluation.harness import Harness, Sampling
from kinetics_serve.evaluation.report import report
from kinetics_serve.evaluation.tasks import Problem, Task
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.recorder import Recorder
from kinetics_serve.traces.traces import Metadata, Traces, read
from tests.arms import PAPER_B200
from tests.synthetic import ARCHITECTURE


class FakeServer:
    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.running = self.most_running = 0
        self.together = 1
        self.failing = 0
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.complete)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_config=None))
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)

    async def complete(self, request: Request) -> StreamingResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.failing:
            self.failing -= 1
            return StreamingResponse(iter(()), 503)
        return StreamingResponse(self.stream(body), media_type="text/event-stream")

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        async with asyncio.timeout(60):
            while self.most_running < self.together:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        self.running -= 1
        says = ["It is 0.5", "It is 1/2", "It is 7", "loop loop"][body["seed"] % 4]
        reason = "repetition" if says.startswith("loop") else "stop"
        choice = {"index": 0, "delta": {"content": says}, "finish_reason": reason}
        usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
        for chunk in ({"choices": [choice]}, {"choices": [], "usage": usage}):
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"


@contextmanager
def running() -> Iterator[FakeServer]:
    fake = FakeServer()
    fake.thread.start()
    while not fake.server.started:
        time.sleep(0.01)
    yield fake
    fake.server.should_exit = True
    fake.thread.join()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


TASK = Task("halves", tuple(Problem(f"Half of {n}/{n}?", ("\\frac{1}{2}",)) for n in range(1, 4)), "Q: {query}")


async def record(server: FakeServer, path: Path, trials: int, kv: KVPolicy = DENSE, concurrency: int = 4) -> Traces:
    recorder = Recorder(path, Metadata(TASK.name, "m", 64, kv, ARCHITECTURE))
    async with new_client() as client:
        harness = Harness(TASK, Upstream(server.url, client), "m", Sampling(64), kv, recorder)
        try:
            await harness.run(trials, concurrency)
        finally:
            recorder.close()
    return read(path)


async def test_trials_are_recorded_graded_and_labelled(server: FakeServer, tmp_path: Path) -> None:
    traces = await record(server, tmp_path / "t.jsonl", 8)
    assert [len(question.trials) for question in traces.questions] == [8, 8, 8]
    for question in traces.questions:
        by_text = {trial.text: trial for trial in question.trials}
        assert by_text["It is 0.5"].correct
        assert by_text["It is 1/2"].correct
        assert by_text["It is 1/2"].answer == by_text["It is 0.5"].answer
        assert not by_text["It is 7"].correct
        assert by_text["loop loop"].status is Status.TRUNCATED
        assert by_text["loop loop"].answer is None
        assert {trial.tokens for trial in question.trials} == {5}
        assert question.prompt_tokens == 12


async def test_requests_say_what_the_task_and_the_kv_budget_ask_for(server: FakeServer, tmp_path: Path) -> None:
    await record(server, tmp_path / "t.jsonl", 4, KVPolicy(512, 16, 2))
    assert {body["vllm_xargs"]["kv_budget"] for body in server.bodies} == {512}
    assert all(body["repetition_detection"]["min_count"] >= 2 for body in server.bodies)
    assert server.bodies[0]["messages"][0]["content"].startswith("Q: Half of")
    assert len({body["seed"] for body in server.bodies}) == 12


async def test_dense_trials_ask_for_it_on_an_engine_that_attends_sparsely(server: FakeServer, tmp_path: Path) -> None:
    await record(server, tmp_path / "t.jsonl", 2)
    assert {body["vllm_xargs"]["kv_budget"] for body in server.bodies} == {0}


async def test_no_more_trials_are_in_flight_than_allowed_and_no_fewer(server: FakeServer, tmp_path: Path) -> None:
    server.together = 3  # before that many have come, none is answered
    await record(server, tmp_path / "t.jsonl", 8, concurrency=3)
    assert server.most_running == 3


async def test_a_run_goes_on_where_it_was_interrupted(server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    first = asyncio.create_task(record(server, path, 40, concurrency=2))
    while len(server.bodies) < 20:
        await asyncio.sleep(0.005)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    there = sum(len(question.trials) for question in read(path).questions)
    assert 0 < there < 120
    with running() as another:  # which gets no request that the first one is only now reading
        traces = await record(another, path, 40)
        assert len(another.bodies) == 120 - there
    assert [[trial.number for trial in question.trials] for question in traces.questions] == [list(range(40))] * 3


async def test_a_server_that_fails_for_a_moment_costs_no_trial(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinetics_serve.evaluation.harness.Harness._complete.retry.wait", wait_none())
    server.failing = 2
    traces = await record(server, tmp_path / "t.jsonl", 2, concurrency=1)
    assert traces.trials == 2
    server.failing = 1000
    with pytest.raises(EngineUnavailable):
        await record(server, tmp_path / "t.jsonl", 3)


async def test_the_report_has_the_rates_that_were_put_in(server: FakeServer, tmp_path: Path) -> None:
    found = report(await record(server, tmp_path / "t.jsonl", 8), PAPER_B200)
    pass_at = {point.samples: point.coverage.mean for point in found.at}
    assert set(pass_at) == {1, 2, 4, 8}
    assert pass_at[1] == pytest.approx(0.5)
    assert pass_at[8] == 1
    assert found.truncated == pytest.approx(0.25)
    assert found.tokens.mean == 5
    costs = [point.eflops.mean for point in found.at]
    assert costs == sorted(costs)
