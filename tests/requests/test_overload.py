"""More requests than the engines manage: who waits, who is refused, what clients see of it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import Price, read_config
from kinetics_serve.engine.served_model import ServedModel
from kinetics_serve.engine.upstream import ModelCard
from kinetics_serve.requests import load
from kinetics_serve.requests.admission import Capacity, Load
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200, arm_of
from tests.fake_vllm import CONFIG, CONTEXT, MODEL, FakeVllm, running_fake_vllm
from tests.serving import metric, serving

CHAT = "/v1/chat/completions"
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
VOTE = {"budget": {"samples": 2}, "strategy": "best_of_n", "max_samples": 2}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "plain stream": PLAIN | {"stream": True},
    "budgeted": PLAIN | {"kinetics": VOTE},
    "budgeted stream": PLAIN | {"kinetics": VOTE, "stream": True},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def shared_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@pytest.fixture
def fake(shared_fake: FakeVllm) -> FakeVllm:
    shared_fake.requests.clear()
    return shared_fake


@pytest.fixture
async def client(fake: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    """Of a front-end that runs two samples at once, and lets one request wait."""
    settings = Settings(capacity=Capacity(samples=2, waiting=1))
    async with serving(create_app([fake.url], PAPER_B200, settings=settings)) as client:
        yield client


async def until_sent(fake: FakeVllm, count: int) -> None:
    async with asyncio.timeout(60):
        while len(fake.sent(CHAT)) < count:
            await asyncio.sleep(0.01)


async def until_waiting(client: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(60):
        while await metric(client, "kinetics_queue_requests") != count:
            await asyncio.sleep(0.01)


@each_kind
async def test_requests_wait_while_there_is_room_to_and_are_refused_then(
    client: httpx.AsyncClient, fake: FakeVllm, kind: str
) -> None:
    with fake.holding():
        first = asyncio.create_task(client.post(CHAT, json=KINDS["budgeted"]))
        await until_sent(fake, 1)
        second = asyncio.create_task(client.post(CHAT, json=KINDS[kind]))
        await until_waiting(client, 1)
        waiting_since = time.monotonic()
        assert await metric(client, "kinetics_load_ratio") == 1
        third = await client.post(CHAT, json=KINDS[kind])
        waited_s = time.monotonic() - waiting_since
    assert (third.status_code, third.json()["error"]["code"]) == (429, "overloaded")
    assert int(third.headers["retry-after"]) >= 1
    assert "1 requests wait" in third.json()["error"]["message"]
    assert [response.status_code for response in await asyncio.gather(first, second)] == [200, 200]
    assert await metric(client, "kinetics_queue_requests") == await metric(client, "kinetics_load_ratio") == 0
    assert await metric(client, "kinetics_queue_wait_seconds_count") == 2
    assert await metric(client, "kinetics_refused_requests_total") == 1
    assert await metric(client, "kinetics_queue_wait_seconds_sum") > waited_s


@each_kind
async def test_a_client_that_leaves_the_queue_makes_room(fake: FakeVllm, kind: str) -> None:
    settings = Settings(capacity=Capacity(samples=2, waiting=1))
    async with serving(create_app([fake.url], PAPER_B200, settings=settings), socket=True) as client:
        with fake.holding():
            first = asyncio.create_task(client.post(CHAT, json=KINDS["budgeted"]))
            await until_sent(fake, 1)
            second = asyncio.create_task(client.post(CHAT, json=KINDS[kind]))
            await until_waiting(client, 1)
            second.cancel()
            await until_waiting(client, 0)
            third = asyncio.create_task(client.post(CHAT, json=KINDS[kind]))
            await until_waiting(client, 1)
        assert [answer.status_code for answer in await asyncio.gather(first, third)] == [200, 200]
        expected = 2 + (2 if "budgeted" in kind else 1)
        assert len(fake.sent(CHAT)) == expected  # nobody generated for the one that left


async def test_a_deadline_that_passes_in_the_queue_is_an_error(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    with fake.holding():
        first = asyncio.create_task(client.post(CHAT, json=KINDS["budgeted"]))
        await until_sent(fake, 1)
        late = await client.post(CHAT, json=PLAIN | {"kinetics": VOTE | {"deadline_s": 0.4}})
    assert (late.status_code, late.json()["error"]["code"]) == (429, "overloaded")
    assert "deadline" in late.json()["error"]["message"]
    assert (await first).status_code == 200


@each_kind
async def test_the_servers_deadline_passes_in_the_queue_like_a_requests_own(fake: FakeVllm, kind: str) -> None:
    app = create_app([fake.url], PAPER_B200, settings=Settings(capacity=Capacity(samples=1), max_deadline_s=0.5))
    async with serving(app) as client:
        async with app.state.services.admission.slot("", Load(1), None):
            late = await client.post(CHAT, json=KINDS[kind])
        assert (late.status_code, late.json()["error"]["code"]) == (429, "overloaded")
        assert int(late.headers["retry-after"]) >= 1
        assert not fake.sent(CHAT)
        assert await metric(client, "kinetics_queue_requests") == await metric(client, "kinetics_load_ratio") == 0


PRICE = Price(read_config(CONFIG, MODEL, 100_000), 562.5)
SERVED = ServedModel(ModelCard(MODEL, MODEL, CONTEXT, {}), PRICE)


def test_a_budget_is_expected_to_buy_samples_of_a_typical_length() -> None:
    arm = arm_of(20, 100_000, 32, price=PRICE)
    typical = arm.worst_case(load.TYPICAL_TOKENS)
    assert load.budgeted(arm, 4 * typical + 1) == Load(4, 4 * typical)
    assert load.budgeted(arm, 10**6 * typical) == Load(32, 32 * typical)
    assert load.budgeted(arm, typical // 2) == Load(1, typical // 2)


@pytest.mark.parametrize(
    ("body", "samples"),
    [
        ({"messages": []}, 1),
        ({"messages": [], "n": 4}, 4),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [], "n": -7, "max_tokens": "many", "best_of": True}, 1),
        ({"n": 10**30}, 1),
    ],
)
def test_a_plain_request_is_expected_to_take_its_completions(body: dict[str, Any], samples: int) -> None:
    found = load.plain(body, 400, SERVED)
    assert found.samples == samples
    assert found.eflops
    assert found.eflops > 0
    assert load.plain(body, 400, ServedModel(SERVED.card, None)).eflops is None


def test_a_shorter_completion_is_expected_to_cost_less() -> None:
    def eflops(**body: int) -> float:
        return load.plain(body, 400, SERVED).eflops or 0

    assert eflops(max_tokens=10) < eflops(max_completion_tokens=20, max_tokens=10) < eflops()
    assert eflops() == eflops(max_tokens=10**6)


async def test_bodies_together_take_no_more_memory_than_they_may(fake: FakeVllm) -> None:
    settings = Settings(capacity=Capacity(samples=1), max_held_bytes=250_000)
    large = PLAIN | {"messages": [{"role": "user", "content": "x" * 100_000}], "max_tokens": 1}
    async with serving(create_app([fake.url], PAPER_B200, settings=settings)) as client:
        with fake.holding():
            held = [asyncio.create_task(client.post(CHAT, json=large)) for _ in range(2)]  # one runs, the other waits
            await until_sent(fake, 1)
            await until_waiting(client, 1)
            refused = await client.post(CHAT, json=large)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "overloaded"
            assert int(refused.headers["retry-after"]) > 0
            assert await metric(client, "kinetics_refused_requests_total") == 1
            assert (await client.get("/health")).status_code == 200
            chunked = await client.post(CHAT, content=pieces(large), headers={"content-type": "application/json"})
            assert chunked.status_code == 429  # it may be as long as a body may be
            for each in held:
                each.cancel()
            await asyncio.gather(*held, return_exceptions=True)
        async with asyncio.timeout(60):
            while (answer := await client.post(CHAT, json=large)).status_code == 429:
                await asyncio.sleep(0.05)
        assert answer.status_code == 200


async def pieces(body: dict[str, Any]) -> AsyncIterator[bytes]:
    yield json.dumps(body).encode()
