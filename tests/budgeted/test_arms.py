"""Requests that leave the model or the KV budget to a calibration."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import DENSE, KVPolicy, read_config
from kinetics_serve.engine.sparse import kv_policy
from kinetics_serve.planner.calibration import CalibratedArm, Calibration, ServedPoint
from kinetics_serve.requests.services import Settings
from kinetics_serve.traces.intervals import Interval
from tests.arms import PAPER_B200
from tests.fake_vllm import CONFIG, MODEL, OTHER_MODEL, FakeVllm, running_fake_vllm

ARCHITECTURE = read_config(CONFIG, "fake")
MESSAGES = [{"role": "user", "content": "hi"}]


def point(
    model: str, accuracy: float, worth: int, kv: KVPolicy = DENSE, further: tuple[CalibratedArm, ...] = ()
) -> ServedPoint:
    spent = Interval(4e8, 4e8, 4e8)
    known = Interval(accuracy, accuracy - 0.1, accuracy + 0.1)
    arms = (CalibratedArm(model, kv, 64, worth), *further)
    strategy, options = ("cascade", {"escalate_below": 0.9}) if further else ("majority_vote", {})
    return ServedPoint(arms, strategy, {"stop_confidence": 0.95, **options}, worth, 1e9, spent, known, 3)


def calibration(*points: ServedPoint) -> Calibration:
    models = {MODEL: ARCHITECTURE, OTHER_MODEL: ARCHITECTURE}
    return Calibration("t", PAPER_B200, 10, models, (), points, ())


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@asynccontextmanager
async def front_end(
    fake: FakeVllm, known: Calibration | None, kv_budget: int | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    fake.word = lambda seed: "7 "
    fake.requests.clear()
    fake.kv_budget = kv_budget
    app = create_app([fake.url], PAPER_B200, settings=Settings(calibration=known))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=30) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


async def ask(client: httpx.AsyncClient, model: str = "kinetics-auto", **kinetics: Any) -> httpx.Response:
    kinetics = {"budget": {"samples": 30}, **kinetics}
    body = {"model": model, "messages": MESSAGES, "max_tokens": 64, "seed": 0, "kinetics": kinetics}
    return await client.post("/v1/chat/completions", json=body)


async def test_the_calibration_chooses_the_model(fake: FakeVllm) -> None:
    async with front_end(fake, calibration(point(MODEL, 0.5, 4), point(OTHER_MODEL, 0.7, 16))) as client:
        rich = (await ask(client)).json()
        poor = (await ask(client, budget={"samples": 5})).json()
        modest = (await ask(client, budget={"accuracy": 0.45})).json()
        listed = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
        card = (await client.get("/v1/models/kinetics-auto")).json()
    assert (rich["model"], poor["model"], modest["model"]) == (OTHER_MODEL, MODEL, MODEL)
    assert rich["kinetics"]["spent_eflops"] <= rich["kinetics"]["budget_eflops"]
    assert listed == [MODEL, OTHER_MODEL, "kinetics-auto"]
    assert card["id"] == "kinetics-auto"


async def test_without_a_calibration_there_is_no_automatic_model(fake: FakeVllm) -> None:
    async with front_end(fake, None) as client:
        response = await ask(client)
        listed = [card["id"] for card in (await client.get("/v1/models")).json()["data"]]
    assert response.status_code == 404
    assert "needs a calibration" in response.json()["error"]["message"]
    assert "kinetics-auto" not in listed


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"kinetics": {"budget": {"samples": 3}, "strategy": "single"}}, "kinetics.strategy"),
        ({"kinetics": {"budget": {"samples": 3}}, "temperature": 0}, "temperature"),
        ({}, "kinetics.budget"),
    ],
)
async def test_the_automatic_model_needs_a_free_hand_and_a_budget(
    fake: FakeVllm, fields: dict[str, Any], param: str
) -> None:
    async with front_end(fake, calibration(point(MODEL, 0.5, 4))) as client:
        body = {"model": "kinetics-auto", "messages": MESSAGES, **fields}
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


async def test_a_cascade_asks_the_second_model_where_the_first_disagrees_with_itself(fake: FakeVllm) -> None:
    known = calibration(point(MODEL, 0.9, 4, further=(CalibratedArm(OTHER_MODEL, DENSE, 32, 4),)))
    async with front_end(fake, known) as client:
        agreed = (await ask(client)).json()
        fake.word = lambda seed: f"{seed if seed < 4 else 7} "
        split = (await ask(client, include_samples=True)).json()
        plan = (
            await client.post(
                "/v1/kinetics/plan",
                json={
                    "model": "kinetics-auto",
                    "messages": MESSAGES,
                    "max_tokens": 64,
                    "kinetics": {"budget": {"samples": 30}},
                },
            )
        ).json()
    assert agreed["model"] == MODEL
    assert [stage["samples_started"] for stage in agreed["kinetics"]["stages"]] == [4, 0]
    assert split["model"] == split["kinetics"]["model"] == OTHER_MODEL
    assert split["kinetics"]["answer"] == "7"
    assert [sample["model"] for sample in split["kinetics"]["samples"]] == [MODEL] * 4 + [OTHER_MODEL] * 4
    assert split["kinetics"]["strategy"] == plan["strategy"] == "cascade"
    assert (plan["model"], plan["second_model"], plan["escalate_below"]) == (MODEL, OTHER_MODEL, 0.9)
    assert split["kinetics"]["spent_eflops"] <= split["kinetics"]["budget_eflops"]


async def test_an_open_kv_budget_is_chosen_by_the_calibration_and_a_stated_one_is_followed(fake: FakeVllm) -> None:
    known = calibration(
        point(MODEL, 0.5, 4, kv_policy(512)), point(MODEL, 0.6, 4, kv_policy(128)), point(MODEL, 0.4, 4)
    )
    async with front_end(fake, known, 512) as client:
        chosen = (await ask(client, MODEL)).json()["kinetics"]
        sent = fake.sent("/v1/chat/completions")[-1]
        stated = (await ask(client, MODEL, kv_budget=512)).json()["kinetics"]
        dense = (await ask(client, MODEL, kv_budget="dense")).json()["kinetics"]
    assert (chosen["kv_budget"], stated["kv_budget"], dense["kv_budget"]) == (128, 512, "dense")
    assert sent["vllm_xargs"] == {"kv_budget": 128}


async def test_an_engine_without_sparse_attention_is_never_asked_for_it(fake: FakeVllm) -> None:
    known = calibration(point(MODEL, 0.5, 4), point(MODEL, 0.6, 4, kv_policy(128)))
    async with front_end(fake, known) as client:
        assert (await ask(client, MODEL)).json()["kinetics"]["kv_budget"] == "dense"
