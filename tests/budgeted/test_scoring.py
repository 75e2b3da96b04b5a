"""Requests that name a scorer, in front of a stand-in for the model that scores."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import Price, read_config
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import CONFIG, MODEL, OTHER_MODEL, PROMPT_TOKENS, FakeVllm, running_fake_vllm

SCORERS: dict[str, dict[str, Any]] = {
    "judge": {"kind": "judge", "model": OTHER_MODEL},
    "same judge": {"kind": "judge"},
    "classify": {"kind": "reward_model", "model": OTHER_MODEL},
    "pooling": {"kind": "reward_model", "model": OTHER_MODEL, "api": "pooling"},
    "score": {"kind": "reward_model", "model": OTHER_MODEL, "api": "score"},
}

PRICE = Price(read_config(CONFIG, "fake"), 562.5)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.word = lambda seed: f"w{seed} "
        fake.score = lambda text: 9.0 if "w2 " in text else 3.0
        yield fake


@asynccontextmanager
async def front_end(fake: FakeVllm, settings: Settings | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app([fake.url], PAPER_B200, settings=settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=30) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


async def ask(client: httpx.AsyncClient, **kinetics: Any) -> httpx.Response:
    kinetics = {"budget": {"samples": 20}, "strategy": "best_of_n", "max_samples": 4, **kinetics}
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 16, "seed": 0, "kinetics": kinetics}
    return await client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("name", SCORERS)
async def test_the_best_score_wins_and_what_scoring_cost_is_on_the_bill(fake: FakeVllm, name: str) -> None:
    async with front_end(fake) as client:
        scored = (await ask(client, scorer=SCORERS[name], include_samples=True)).json()
    bill = scored["kinetics"]
    assert scored["choices"][0]["message"]["content"] == "w2 " * 8
    assert [sample["score"] for sample in bill["samples"]] == [3.0, 3.0, 9.0, 3.0]
    assert bill["scorer"]["kind"] == SCORERS[name]["kind"]
    judge = SCORERS[name]["kind"] == "judge"
    each = PRICE.sample(PROMPT_TOKENS, 1) if judge else PRICE.sample(PROMPT_TOKENS + 5, 0)
    assert bill["scorer"]["spent_eflops"] == pytest.approx(4 * PRICE.eflops(each), abs=1)
    assert bill["scorer"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]


async def test_the_scorers_prompt_can_not_outgrow_what_was_reserved(fake: FakeVllm) -> None:
    fake.requests.clear()
    async with front_end(fake) as client:
        await ask(client, scorer=SCORERS["classify"])
    assert {body["truncate_prompt_tokens"] for body in fake.sent("/classify")} == {PROMPT_TOKENS + 2 * 8 + 16}


async def test_scoring_is_inside_the_budget(fake: FakeVllm) -> None:
    async with front_end(fake) as client:
        one = (await ask(client, budget={"samples": 1})).json()["kinetics"]
        scored = (await ask(client, budget={"samples": 2}, scorer=SCORERS["judge"])).json()["kinetics"]
        error = (await ask(client, budget={"eflops": 2.5e6}, scorer=SCORERS["judge"])).json()["error"]
    assert one["samples_started"] == 1
    assert scored["samples_started"] == 1  # two would not leave enough for their grades
    assert scored["spent_eflops"] <= scored["budget_eflops"]
    assert error["code"] == "budget_too_small"


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        ({"kind": "http", "url": "http://evil.example/"}, "evil.example:80 is not one that this server's"),
        ({"kind": "http", "url": "file:///etc/passwd"}, "expected a URL"),
        ({"kind": "reward_model"}, "Field required"),
        ({"kind": "oracle"}, "judge"),
        ({"kind": "judge", "model": "absent"}, "'absent' is not served here"),
    ],
)
async def test_a_scorer_that_can_not_be_used_is_refused_before_anything_is_spent(
    fake: FakeVllm, scorer: dict[str, Any], words: str
) -> None:
    fake.requests.clear()
    async with front_end(fake) as client:
        response = await ask(client, scorer=scorer)
    assert response.status_code in (400, 404)
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["param"].startswith("kinetics.scorer")
    assert not fake.sent("/v1/chat/completions")


async def test_a_scorer_needs_a_strategy_that_chooses_by_scores(fake: FakeVllm) -> None:
    async with front_end(fake) as client:
        response = await ask(client, scorer=SCORERS["judge"], strategy="majority_vote")
    assert response.status_code == 400
    assert "best_of_n, deepconf, weighted_vote" in response.json()["error"]["message"]


async def test_a_verifier_that_is_gone_fails_the_request_clearly(fake: FakeVllm) -> None:
    settings = Settings(verifier_hosts=frozenset({"127.0.0.1:9"}))
    async with front_end(fake, settings) as client:
        response = await ask(client, scorer={"kind": "http", "url": "http://127.0.0.1:9/score"})
        metrics = (await client.get("/metrics")).text
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "scorer_failed"
    assert "127.0.0.1:9" in response.json()["error"]["message"]
    assert 'outcome="failed"' in metrics
