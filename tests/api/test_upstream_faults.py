"""What clients see when a server answers in ways that a real one can't be made to."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.engine.upstream import Patience
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.serving import metric, serving

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
BUDGETED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 20,
    "kinetics": {"budget": {"samples": 2}, "strategy": "single"},
}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        yield fake


@pytest.fixture
async def client(fake: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    fake.events, fake.api_key, fake.status, fake.headers = None, None, 200, {}
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        yield client


def chunk(text: str, finish: str | None = "stop", usage: dict[str, Any] | None = USAGE) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"choices": [choice]} | ({"usage": usage} if usage else {}), ensure_ascii=False)


async def ask(client: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=BUDGETED | fields)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_inside_a_stream_is_the_clients_own_fault(
    client: httpx.AsyncClient, fake: FakeVllm, stream: bool
) -> None:
    fake.events = ['{"error": {"message": "logit_bias is out of range", "code": 400}}', "[DONE]"]
    response = await ask(client, stream=stream)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "logit_bias is out of range"
    assert (await client.get("/ready")).status_code == 200  # nobody else pays for it


async def test_line_ends_of_unicode_are_text(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    fake.events = [chunk("one\u2028two\u0085three"), "[DONE]"]
    response = await ask(client)
    assert response.json()["choices"][0]["message"]["content"] == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([chunk("x", usage=None), "[DONE]"], "no usage"),
        ([chunk("x", finish=None)], "broke off"),
        (["<html>"], "completion chunks"),
        (["[1]"], "completion chunks"),
        (['{"choices": null}', "[DONE]"], "completion chunks"),
        (['{"choices": [{"delta": "x"}]}', "[DONE]"], "completion chunks"),
        (['{"choices": [], "usage": {}}', "[DONE]"], "no usage"),
        (['{"error": {"message": "out of memory", "code": 500}}'], "out of memory"),
    ],
)
async def test_a_server_that_makes_no_sense_is_unavailable_and_nothing_stays_reserved(
    client: httpx.AsyncClient, fake: FakeVllm, events: list[str], words: str
) -> None:
    fake.events = events
    response = await ask(client)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"
    assert words in response.json()["error"]["message"]
    assert await metric(client, "kinetics_inflight_samples") == 0
    assert await metric(client, "kinetics_requests_total") == 1


async def test_a_prompt_longer_than_it_was_priced_at_is_refused(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    fake.events = [chunk("x", usage=USAGE | {"prompt_tokens": 500}), "[DONE]"]
    response = await ask(client)
    assert response.status_code == 400
    assert "500 tokens" in response.json()["error"]["message"]


async def test_more_cached_tokens_than_the_prompt_has_are_no_refund(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    usage: dict[str, Any] = USAGE | {"prompt_tokens_details": {"cached_tokens": 10**6}}
    fake.events = [chunk("x", usage=usage), "[DONE]"]
    bill = (await ask(client)).json()["kinetics"]
    assert 0 < bill["spent_eflops"] <= bill["budget_eflops"]


async def test_seeds_count_up_from_the_clients_own_within_64_bits(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    fake.requests.clear()
    options = {"budget": {"samples": 3}, "strategy": "best_of_n", "max_samples": 3}
    await ask(client, seed=2**63 - 2, kinetics=options)
    seeds = [body["seed"] for body in fake.sent("/v1/chat/completions")]
    assert sorted(seeds) == [-(2**63), 2**63 - 2, 2**63 - 1]


async def test_what_the_chat_template_takes_is_counted_with_the_prompt(
    client: httpx.AsyncClient, fake: FakeVllm
) -> None:
    fake.requests.clear()
    await ask(client, documents=[{"text": "a page"}], chat_template_kwargs={"enable_thinking": False})
    sent = fake.sent("/tokenize")[0]
    assert sent["chat_template_kwargs"] == {"documents": [{"text": "a page"}], "enable_thinking": False}


async def test_plain_requests_reach_the_server_as_they_are(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    fake.events = [chunk("x"), "[DONE]"]
    content = b'{"model": "fake",  "stream": true, "messages": [{"role": "user", "content": "hi"}], "extra": 1.50}'
    async with httpx.AsyncClient() as direct:
        theirs = await direct.post(f"{fake.url}/v1/chat/completions", content=content)
    ours = await client.post("/v1/chat/completions", content=content, headers={"accept-encoding": "identity"})
    assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert fake.requests[-1] == fake.requests[-2]


@pytest.mark.parametrize("kinetics", [7, {"nonsense": 1}, {"max_samples": 0}])
async def test_a_plan_checks_its_options_without_a_budget_too(client: httpx.AsyncClient, kinetics: Any) -> None:
    response = await client.post("/v1/kinetics/plan", json=BUDGETED | {"kinetics": kinetics})
    assert response.status_code == 400
    assert len(response.text) < 1000


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"kinetics": None}, {"kinetics": None, "stream": True}])
async def test_an_overloaded_server_is_reported_with_its_own_retry_after(
    client: httpx.AsyncClient, fake: FakeVllm, fields: dict[str, Any]
) -> None:
    fake.status, fake.headers = 429, {"retry-after": "7"}
    response = await ask(client, **fields)
    assert (response.status_code, response.json()["error"]["code"]) == (429, "overloaded")
    assert response.headers["retry-after"] == "7"
    assert (await client.get("/ready")).status_code == 200


async def test_a_clients_own_key_stays_here(fake: FakeVllm) -> None:
    fake.events, fake.status, fake.api_key = None, 200, "ours"
    async with serving(create_app([fake.url], PAPER_B200, upstream_api_key="ours")) as client:
        for fields in ({}, {"kinetics": None}):
            response = await client.post(
                "/v1/chat/completions",
                json={"model": MODEL} | BUDGETED | fields,
                headers={"authorization": "Bearer theirs"},
            )
            assert response.status_code == 200


@pytest.mark.parametrize("fields", [{"stream": True}, {"kinetics": None, "stream": True}])
async def test_a_stream_that_breaks_off_ends_with_an_error(fake: FakeVllm, fields: dict[str, Any]) -> None:
    fake.events, fake.api_key, fake.status, fake.breaks_after = None, None, 200, 3
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        response = await client.post("/v1/chat/completions", json={"model": MODEL} | BUDGETED | fields)
    fake.breaks_after = None
    assert response.status_code == 200
    *_, error, done = (line[6:] for line in response.text.splitlines() if line.startswith("data: "))
    assert (json.loads(error)["error"]["code"], done) == ("engine_unavailable", "[DONE]")


async def test_the_servers_own_deadline_ends_every_request(fake: FakeVllm) -> None:
    fake.events, fake.api_key, fake.status, fake.token_s = None, None, 200, 0.5
    fields = {"model": MODEL} | BUDGETED
    settings = Settings(max_deadline_s=2)
    async with serving(create_app([fake.url], PAPER_B200, settings=settings)) as client:
        budgeted, longer, plain, stream = await asyncio.gather(
            client.post("/v1/chat/completions", json=fields),
            client.post("/v1/chat/completions", json=fields | {"kinetics": BUDGETED["kinetics"] | {"deadline_s": 9}}),
            client.post("/v1/chat/completions", json=fields | {"kinetics": None}),
            client.post("/v1/chat/completions", json=fields | {"kinetics": None, "stream": True}),
        )
    fake.token_s = 0
    for answer in (budgeted, longer):
        assert (answer.status_code, answer.json()["kinetics"]["stop_reason"]) == (200, "deadline")
    assert (plain.status_code, plain.json()["error"]["code"]) == (504, "engine_timeout")
    assert "within 2 s" in plain.json()["error"]["message"]
    assert (stream.status_code, stream.text[-14:]) == (200, "data: [DONE]\n\n")  # it had begun


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"kinetics": None, "stream": True}])
async def test_a_server_that_takes_too_long_is_given_up(fake: FakeVllm, fields: dict[str, Any]) -> None:
    fake.events, fake.api_key, fake.status = None, None, 200
    app = create_app([fake.url], PAPER_B200, patience=Patience(first_token_s=0.1))
    with fake.holding():
        async with serving(app) as client:
            response = await client.post("/v1/chat/completions", json={"model": MODEL} | BUDGETED | fields)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "engine_timeout")
    assert "nothing for 0.1 s" in response.json()["error"]["message"]
