"""Samples that run out of tokens and are asked for their answer."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import DENSE, Price, read_config
from kinetics_serve.engine.chunks import Choice, Chunk, Delta
from kinetics_serve.sources.completion import ChatCompletion
from kinetics_serve.sources.forced import CUE, Forcing, forced_body
from tests.arms import PAPER_B200
from tests.fake_vllm import CONFIG, CONTEXT, MODEL, PROMPT_TOKENS, FakeVllm, running_fake_vllm

PRICE = Price(read_config(CONFIG, "fake"), 562.5)
FORCING = Forcing(PRICE, DENSE, PROMPT_TOKENS, 4, CONTEXT)
USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 16, "total_tokens": PROMPT_TOKENS + 16}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.word = lambda seed: " 42"
        choice = {"index": 0, "delta": {"content": "<think>7 times 6 is 7 and"}, "finish_reason": "length"}
        fake.events = [json.dumps({"choices": [choice], "usage": USAGE}), "[DONE]"]
        yield fake


@pytest.fixture
async def client(fake: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    fake.requests.clear()
    app = create_app([fake.url], PAPER_B200)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=30) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


async def ask(client: httpx.AsyncClient, force_tokens: int, **fields: Any) -> httpx.Response:
    answer = {"force_tokens": force_tokens}
    kinetics = {"budget": {"samples": 9}, "strategy": "self_consistency", "max_samples": 4, "answer": answer}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "6 times 7?"}], "max_tokens": 16, **fields}
    return await client.post("/v1/chat/completions", json=body | {"kinetics": kinetics})


async def test_a_sample_that_was_cut_off_votes_after_a_cue_and_pays_for_it(
    client: httpx.AsyncClient, fake: FakeVllm
) -> None:
    without = (await ask(client, 0)).json()["kinetics"]
    forced = (await ask(client, 4)).json()
    bill = forced["kinetics"]
    assert (without["answer"], without["votes"]) == (None, [])
    assert bill["votes"] == [{"answer": "42 42 42 42", "count": 4, "weight": 0.0}]
    assert forced["choices"][0]["message"]["content"].endswith(f"{CUE} 42 42 42 42")
    assert forced["usage"]["completion_tokens_details"]["sampled_tokens"] == 4 * (16 + 4)
    each, _ = FORCING.settle(16, {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 4})
    assert bill["forced"] == {"completion_tokens": 16, "spent_eflops": pytest.approx(4 * PRICE.eflops(each), abs=1)}
    assert bill["forced"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]
    cues = [body for body in fake.sent("/v1/chat/completions") if body.get("continue_final_message")]
    assert len(cues) == 4
    assert cues[0]["messages"][-1] == {"role": "assistant", "content": f"<think>7 times 6 is 7 and\n</think>{CUE}"}
    assert cues[0]["truncate_prompt_tokens"] == FORCING.limit(16)


async def test_a_forced_answer_may_be_shorter_than_a_sample_must_be(client: httpx.AsyncClient) -> None:
    bill = (await ask(client, 4, min_tokens=8)).json()["kinetics"]
    assert (bill["answer"], bill["forced"]["completion_tokens"]) == ("42 42 42 42", 16)
    metrics = (await client.get("/metrics")).text.splitlines()
    (counted,) = [line for line in metrics if line.startswith("kinetics_tokens_total{") and "completion" in line]
    assert float(counted.split()[-1]) == bill["completion_tokens"] == 4 * (16 + 4)


async def test_forcing_that_the_engine_refuses_costs_nothing(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    without = (await ask(client, 0)).json()["kinetics"]
    fake.goes_on = False
    try:
        refused = (await ask(client, 4)).json()["kinetics"]
    finally:
        fake.goes_on = True
    assert refused["samples_truncated"] == 4
    assert refused["forced"] == {"completion_tokens": 0, "spent_eflops": 0}
    assert refused["spent_eflops"] == without["spent_eflops"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize("fields", [{"tools": [TOOL]}, {"response_format": {"type": "json_object"}}])
async def test_only_text_can_be_forced(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    response = await ask(client, 4, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "kinetics.answer.force_tokens"


def test_reasoning_that_the_server_took_apart_is_put_together_again_and_closed() -> None:
    completion = ChatCompletion(None)
    completion.add(Chunk([Choice(Delta(reasoning="hm"), finish_reason="length")]))
    sent = forced_body({"messages": [], "seed": 3, "temperature": 1, "top_p": 0.9}, completion)
    assert sent["messages"] == [{"role": "assistant", "content": f"<think>\nhm\n</think>\n\n{CUE}"}]
    assert "seed" not in sent
    assert (sent["temperature"], sent["top_p"]) == (0, 0.9)


@pytest.mark.parametrize("tokens", [1, 50, CONTEXT])
def test_what_forcing_costs_is_reserved(tokens: int) -> None:
    for much in (10**6, -1, None, "3"):
        usage = {"prompt_tokens": much, "completion_tokens": much}
        assert FORCING.settle(tokens, usage) == (FORCING.worst_case(tokens), FORCING.force_tokens)
    assert FORCING.limit(tokens) + FORCING.force_tokens <= CONTEXT
