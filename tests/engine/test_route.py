"""Requests to several servers of which some fail, through the front-end and over real sockets to them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.engine.circuit import FAILURES_TO_OPEN
from kinetics_serve.engine.route import MAX_RETRIES
from kinetics_serve.requests.services import Services
from kinetics_serve.runner.live import MOST_IN_VAIN
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.serving import metric, serving

CHAT = "/v1/chat/completions"
PLAIN = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}
VOTE = {"budget": {"samples": 6}, "strategy": "best_of_n", "max_samples": 6, "include_samples": True}
ONE_SAMPLE = {"budget": {"samples": 1}, "strategy": "single", "include_samples": True}
KINDS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "plain stream": PLAIN | {"stream": True},
    "budgeted": PLAIN | {"kinetics": VOTE},
    "budgeted stream": PLAIN | {"kinetics": VOTE, "stream": True},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], FakeVllm]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("model")
        yield lambda: stack.enter_context(running_fake_vllm(folder))


@pytest.fixture(scope="module")
def standing() -> list[FakeVllm]:
    return []


@pytest.fixture
def fakes(start: Callable[[], FakeVllm], standing: list[FakeVllm]) -> list[FakeVllm]:
    """Three. The next test gets a new one for each that is removed."""
    while len(standing) < 3:
        standing.append(start())
    for fake in standing:
        fake.restart()
    return standing


@pytest.fixture
async def client(fakes: list[FakeVllm]) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_app([fake.url for fake in fakes], PAPER_B200)) as client:
        while await metric(client, "kinetics_upstream_up") < len(fakes):
            await asyncio.sleep(0.01)
        yield client


def users(fakes: list[FakeVllm]) -> list[FakeVllm]:
    """Those that were asked to generate."""
    return [fake for fake in fakes if fake.sent(CHAT)]


def bill_of(response: httpx.Response) -> dict[str, Any]:
    if "event-stream" not in response.headers["content-type"]:
        return dict(response.json()["kinetics"])
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    return dict(next(chunk["kinetics"] for chunk in reversed(chunks) if "stop_reason" in chunk.get("kinetics", {})))


async def home(client: httpx.AsyncClient, fakes: list[FakeVllm]) -> FakeVllm:
    """The server that gets the prompt while all are well."""
    assert (await client.post(CHAT, json=PLAIN)).status_code == 200
    (fake,) = users(fakes)
    fake.requests.clear()
    return fake


async def test_all_samples_and_later_turns_of_a_prompt_meet_in_one_server(
    client: httpx.AsyncClient, fakes: list[FakeVllm]
) -> None:
    expected = await home(client, fakes)
    for body in KINDS.values():
        assert (await client.post(CHAT, json=body)).status_code == 200
        turns = [*PLAIN["messages"], {"role": "assistant", "content": "x"}, {"role": "user", "content": "more"}]  # type: ignore[misc]
        assert (await client.post(CHAT, json=body | {"messages": turns})).status_code == 200
    assert users(fakes) == [expected]


async def test_many_prompts_at_once_use_all_servers(client: httpx.AsyncClient, fakes: list[FakeVllm]) -> None:
    for fake in fakes:  # none is done before all have come
        fake.goes_ahead = lambda: sum(len(each.sent(CHAT)) for each in fakes) == len(prompts)
    prompts = [PLAIN | {"messages": [{"role": "user", "content": str(number)}]} for number in range(30)]
    responses = await asyncio.gather(*(client.post(CHAT, json=prompt) for prompt in prompts))
    assert {response.status_code for response in responses} == {200}
    assert max(len(fake.sent(CHAT)) for fake in fakes) <= 13  # 1.25 times the mean


@pytest.mark.parametrize("kind", ["plain", "budgeted"])
async def test_equal_prompts_that_waited_for_their_turn_use_all_servers(
    client: httpx.AsyncClient, fakes: list[FakeVllm], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chooses a server when it comes, all while none has begun, as where they wait for a ledger."""
    admitted, waiting, turn = Services.admitted, 0, asyncio.Event()

    @asynccontextmanager
    async def all_at_once(*arguments: Any) -> AsyncIterator[None]:
        nonlocal waiting
        async with admitted(*arguments):
            waiting += 1
            if waiting == 30:
                turn.set()
            await turn.wait()
            yield

    monkeypatch.setattr(Services, "admitted", all_at_once)
    for fake in fakes:  # none is done before all have come
        fake.goes_ahead = lambda: sum(len(each.sent(CHAT)) for each in fakes) == 30
    body = KINDS[kind] | ({"kinetics": ONE_SAMPLE} if kind == "budgeted" else {})
    responses = await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(30)))
    assert {response.status_code for response in responses} == {200}
    assert max(len(fake.sent(CHAT)) for fake in fakes) <= 13  # 1.25 times the mean


@each_kind
@pytest.mark.parametrize("fault", ["502", "429", "breaks before its first token"])
async def test_a_request_that_a_server_fails_is_answered_by_another(
    client: httpx.AsyncClient, fakes: list[FakeVllm], kind: str, fault: str
) -> None:
    body = KINDS[kind] | ({"kinetics": ONE_SAMPLE} if "budgeted" in kind else {})
    broken = await home(client, fakes)
    whole = await client.post(CHAT, json=body)
    if fault.isdigit():
        broken.status = int(fault)
    else:
        broken.breaks_after = 0
    response = await client.post(CHAT, json=body)
    assert response.status_code == 200
    if "budgeted" in kind:
        bill = bill_of(response)
        assert bill["spent_eflops"] == bill_of(whole)["spent_eflops"]  # the failed try costs nothing
        assert {sample["status"] for sample in bill["samples"]} == {"finished"}
    else:
        assert response.text == whole.text
    assert len(users(fakes)) == 2 or fault.startswith("breaks")  # only streams break


@each_kind
async def test_a_server_that_is_gone_costs_nobody_anything(
    client: httpx.AsyncClient, fakes: list[FakeVllm], kind: str
) -> None:
    gone = await home(client, fakes)
    gone.shut_down()
    fakes.remove(gone)
    response = await client.post(CHAT, json=KINDS[kind])
    assert response.status_code == 200
    assert await metric(client, "kinetics_inflight_samples") == 0


async def test_a_sample_that_breaks_off_after_its_first_token_is_not_begun_again(
    client: httpx.AsyncClient, fakes: list[FakeVllm]
) -> None:
    for fake in fakes:
        fake.breaks_after = 3
    response = await client.post(CHAT, json=KINDS["budgeted"])
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
    assert len(users(fakes)) == 1


@each_kind
async def test_a_request_that_every_server_fails_costs_nothing(
    client: httpx.AsyncClient, fakes: list[FakeVllm], kind: str
) -> None:
    for fake in fakes:
        fake.status = 500
    response = await client.post(CHAT, json=KINDS[kind])
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
    samples = MOST_IN_VAIN if kind.startswith("budgeted") else 1
    assert sum(len(fake.sent(CHAT)) for fake in fakes) == MAX_RETRIES + samples
    assert await metric(client, "kinetics_eflops_total") == 0


@pytest.mark.parametrize("status", [403, 501, 504, 505])
async def test_what_another_server_would_say_too_is_asked_of_one_and_held_against_none(
    client: httpx.AsyncClient, fakes: list[FakeVllm], status: int
) -> None:
    for fake in fakes:
        fake.status = status
    for asked in range(1, FAILURES_TO_OPEN + 2):
        response = await client.post(CHAT, json=PLAIN)
        assert (response.status_code, response.headers.get("retry-after")) == (status, None)
        assert "as it was told" in response.text
        assert "try again" not in response.text
        assert sum(len(fake.sent(CHAT)) for fake in fakes) == asked
    assert await metric(client, "kinetics_upstream_circuit_openings_total") == 0


@pytest.mark.parametrize("status", [403, 501, 504])
async def test_a_sample_gets_the_servers_own_status_too(
    client: httpx.AsyncClient, fakes: list[FakeVllm], status: int
) -> None:
    for fake in fakes:
        fake.status = status
    response = await client.post(CHAT, json=PLAIN | {"kinetics": ONE_SAMPLE})
    assert response.status_code == status
    assert "as it was told" in response.json()["error"]["message"]
    assert len(users(fakes)) == 1


async def test_a_server_that_breaks_requests_off_is_left_alone_until_it_cooled_down(
    client: httpx.AsyncClient, fakes: list[FakeVllm]
) -> None:
    broken = await home(client, fakes)
    broken.breaks_after = 0
    for _ in range(FAILURES_TO_OPEN + 2):
        assert (await client.post(CHAT, json=KINDS["plain stream"])).status_code == 200
    broken.healthy = False
    tried = len(broken.sent(CHAT))
    assert tried == FAILURES_TO_OPEN
    await asyncio.sleep(2.5)
    assert (await client.post(CHAT, json=KINDS["plain stream"])).status_code == 200
    assert len(broken.sent(CHAT)) == tried  # it has rested, and not passed a check
    broken.breaks_after, broken.healthy = None, True
    async with asyncio.timeout(60):
        while len(broken.sent(CHAT)) == tried:
            assert (await client.post(CHAT, json=KINDS["plain stream"])).status_code == 200
            await asyncio.sleep(0.1)
