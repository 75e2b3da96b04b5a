"""A server that follows a calibration, in front of an upstream that speaks vLLM's API over a real socket."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from kinetics_serve.api.app import create_app
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.planner.calibrate import calibrate
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.requests.services import Settings
from tests.front_ends import listening
from tests.openapi_document import document_of, undescribed
from tests.synthetic import synthetic

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


SENT: list[dict[str, Any]] = []
"""What the upstream was asked to complete."""

ENGINE: dict[str, str] = {}
"""What it says of its version, if anything."""


def start(app: FastAPI) -> tuple[str, uvicorn.Server]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    threading.Thread(target=server.run, args=([listener],), daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{listener.getsockname()[1]}", server


def upstream(folder: Path) -> FastAPI:
    """Answers `42` in five tokens."""
    app = FastAPI()

    @app.get("/health")
    async def health() -> None: ...

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"data": [{"id": "tiny", "root": str(folder), "max_model_len": 8192}]}

    @app.get("/version")
    async def version() -> dict[str, str]:
        return ENGINE

    @app.post("/tokenize")
    async def tokenize() -> dict[str, int]:
        return {"count": 50}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> StreamingResponse:
        SENT.append(await request.json())
        choice = {"index": 0, "delta": {"content": "42"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
        chunk = json.dumps({"choices": [choice], "usage": usage})
        return StreamingResponse(iter((f"data: {chunk}\n\n", "data: [DONE]\n\n")), media_type="text/event-stream")

    return app


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    traces = synthetic(questions=10, trials=8)
    sampling = {"temperature": 0.7, "top_p": 0.9, "template": "{query} Think of \\boxed{{}}."}
    metadata = replace(traces.metadata, sampling=sampling, engine={"vllm": "0.32.0"})
    recorded = replace(traces, metadata=metadata)
    return calibrate([recorded], GPUS["b200"], repeats=2)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, calibration: Calibration) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    engine_url, engine = start(upstream(folder))
    front_url, front = start(create_app([engine_url], GPUS["b200"], settings=Settings(calibration=calibration)))
    while httpx.get(f"{front_url}/ready").status_code != 200:
        time.sleep(0.05)
    yield front_url
    front.should_exit = engine.should_exit = True


def ask(url: str, path: str, **kinetics: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "6 times 7?"}], "kinetics": kinetics}
    return httpx.post(f"{url}{path}", json=body, timeout=30)


CHAT, PLAN = "/v1/chat/completions", "/v1/kinetics/plan"


def test_an_accuracy_gets_the_cheapest_plan_expected_to_reach_it(url: str, calibration: Calibration) -> None:
    answer = ask(url, PLAN, budget={"accuracy": 0.5}).json()
    assert answer["basis"] == "calibration"
    assert answer["expected_accuracy"]["mean"] >= 0.5
    reaching = [point for point in calibration.served if point.accuracy.mean >= 0.5]
    assert answer["strategy"] in {point.strategy for point in reaching}
    assert answer["expected_eflops"] <= answer["budget_eflops"]
    served = ask(url, CHAT, budget={"accuracy": 0.5}).json()["kinetics"]
    assert served["budget_eflops"] == answer["budget_eflops"]
    assert served["strategy"] == answer["strategy"]
    assert served["spent_eflops"] <= served["budget_eflops"]


def test_an_accuracy_out_of_reach_is_an_error_with_the_most_that_can_be_promised(
    url: str, calibration: Calibration
) -> None:
    most = max(point.accuracy.mean for point in calibration.served)
    for path in (CHAT, PLAN):
        response = ask(url, path, budget={"accuracy": 0.999})
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == "kinetics.budget.accuracy"
        assert f"{most:.3f}" in error["message"]


def test_auto_follows_the_calibration_and_says_what_half_and_twice_would_bring(url: str) -> None:
    answer = ask(url, PLAN, budget={"eflops": 3e12}).json()
    assert answer["basis"] == "calibration"
    assert answer["budget_eflops"] == 3 * 10**12
    half, now, twice = (
        answer[name]["mean"] for name in ("half_budget_accuracy", "expected_accuracy", "twice_budget_accuracy")
    )
    assert half <= now <= twice
    assert undescribed(document_of(url), "PlanAnswer", answer) == []


def test_a_named_strategy_is_followed_and_its_plan_stands_on_guidance(url: str) -> None:
    answer = ask(url, PLAN, budget={"eflops": 3e12}, strategy="best_of_n").json()
    assert (answer["strategy"], answer["basis"]) == ("best_of_n", "guidance")
    assert answer["assumptions"]
    error = ask(url, CHAT, budget={"accuracy": 0.5}, strategy="best_of_n").json()["error"]
    assert error["param"] == "kinetics.strategy"


@pytest.mark.parametrize("strategy", ["race", "consensus", "weighted_vote", "self_consistency"])
def test_every_vote_can_be_served(url: str, strategy: str) -> None:
    bill = ask(url, CHAT, budget={"eflops": 3e13}, strategy=strategy, max_samples=6).json()["kinetics"]
    assert (bill["strategy"], bill["answer"]) == (strategy, "42")
    assert bill["spent_eflops"] <= bill["budget_eflops"]


def test_what_a_request_leaves_open_is_sampled_as_it_was_recorded(url: str) -> None:
    SENT.clear()
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "6 times 7? Think of \\boxed{}."}]}
    followed = httpx.post(f"{url}{CHAT}", json=body | {"kinetics": {"budget": {"accuracy": 0.5}}}).json()["kinetics"]
    assert {(sent["temperature"], sent["top_p"]) for sent in SENT} == {(0.7, 0.9)}
    assert followed["notes"] == []


def test_plan_and_bill_say_what_differs_from_the_recording(url: str) -> None:
    SENT.clear()
    body = {"messages": [{"role": "user", "content": "6 times 7?"}], "temperature": 0.2}
    asked = body | {"kinetics": {"budget": {"accuracy": 0.5}}}
    bill = httpx.post(f"{url}{CHAT}", json=asked).json()["kinetics"]
    assert {sent["temperature"] for sent in SENT} == {0.2}
    temperature, template = bill["notes"]
    assert "temperature is 0.2" in temperature
    assert "0.7" in temperature
    assert "template" in template
    assert httpx.post(f"{url}{PLAN}", json=asked).json()["notes"] == bill["notes"]


def test_plan_and_bill_say_what_no_recording_states_and_that_vllm_is_another(url: str) -> None:
    body = {
        "messages": [{"role": "user", "content": "6 times 7? Think of \\boxed{}."}],
        "top_k": 5,
        "min_p": 0,
        "seed": 3,
    }
    asked = body | {"kinetics": {"budget": {"accuracy": 0.5}}}
    ENGINE["version"] = "0.33.0"
    try:
        deadline = time.monotonic() + 60
        while len(notes := httpx.post(f"{url}{PLAN}", json=asked).json()["notes"]) < 2:
            assert time.monotonic() < deadline, notes
            time.sleep(0.2)
    finally:
        ENGINE.clear()
    top_k, vllm = notes
    assert "top_k is stated" in top_k
    assert "the engine's vllm is 0.33.0, and the calibration was recorded with 0.32.0" in vllm


def test_a_named_strategy_is_sampled_as_the_request_says(url: str) -> None:
    SENT.clear()
    ask(url, CHAT, budget={"eflops": 3e12}, strategy="majority_vote")
    assert all("temperature" not in sent for sent in SENT)


def test_the_metrics_set_what_plans_expect_beside_what_came_and_the_log_warns_once_of_a_drift(
    tmp_path: Path, calibration: Calibration, caplog: pytest.LogCaptureFixture
) -> None:
    """Samples of five tokens spend far less than the calibration's, of up to 400."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    engine_url, engine = start(upstream(tmp_path))
    with listening(create_app([engine_url], GPUS["b200"], settings=Settings(calibration=calibration))) as front_url:
        expected = ask(front_url, PLAN, budget={"accuracy": 0.5}).json()["expected_eflops"]
        with caplog.at_level(logging.WARNING, "kinetics_serve.requests.plan_watch"):
            bills = [ask(front_url, CHAT, budget={"accuracy": 0.5}).json()["kinetics"] for _ in range(70)]
            ask(front_url, CHAT, budget={"eflops": 3e12}, strategy="majority_vote")
        lines = httpx.get(f"{front_url}/metrics").text.splitlines()
    engine.should_exit = True
    pairs = [line.rsplit(" ", 1) for line in lines if line.startswith("kinetics_plan_")]
    found = {name: float(value) for name, value in pairs}
    task = '{task="synthetic"}'
    assert found[f"kinetics_plan_requests_total{task}"] == 70
    assert found[f"kinetics_plan_expected_eflops_total{task}"] == pytest.approx(70 * expected)
    assert found[f"kinetics_plan_spent_eflops_total{task}"] == sum(bill["spent_eflops"] for bill in bills)
    assert found[f"kinetics_plan_agreement_total{task}"] == 70
    assert found['kinetics_plan_drifted{figure="spend",task="synthetic"}'] == 1
    (warning,) = [each.getMessage() for each in caplog.records if each.name == "kinetics_serve.requests.plan_watch"]
    assert "of the last 50 that it planned" in warning
    assert "kinetics-serve eval" in warning
