"""What votes, what does not, and what the response says of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm

QUESTION = "Which city is the capital of France?\nA. Lyon\nB. Paris\nC. Nice"


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.tokens = 1
        yield fake


@pytest.fixture
async def client(fake: FakeVllm) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app([fake.url], PAPER_B200)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=60) as client,
    ):
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


async def ask(
    client: httpx.AsyncClient, fake: FakeVllm, samples: list[str], question: str = "How much?", **answer: Any
) -> httpx.Response:
    """One vote of these samples."""
    fake.word = lambda seed: samples[seed]
    kinetics = {
        "budget": {"samples": 30},
        "strategy": "self_consistency",
        "max_samples": len(samples),
        "include_samples": True,
        "answer": answer,
    }
    messages = [{"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 32, "seed": 0, "kinetics": kinetics}
    return await client.post("/v1/chat/completions", json=body)


async def test_answers_that_are_one_vote_together_in_any_notation(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    bill = (await ask(client, fake, [r"\boxed{\frac12}", "The answer is 0.5.", "#### 1/2", "7"])).json()["kinetics"]
    assert [vote["count"] for vote in bill["votes"]] == [3, 1]
    assert (bill["answer_kind"], bill["no_votes"]) == ("math", {})


async def test_a_sample_without_a_vote_says_why(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    samples = ["no box", "<think> it is \\boxed{5}", "\\boxed{6}", " "]
    bill = (await ask(client, fake, samples, extractor="boxed")).json()["kinetics"]
    assert bill["no_votes"] == {"no_answer": 1, "unfinished_thinking": 1, "empty": 1}
    assert [each["no_vote"] for each in bill["samples"]] == ["no_answer", "unfinished_thinking", None, "empty"]
    assert bill["answer"] == "6"


async def test_options_in_the_prompt_make_it_multiple_choice(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    samples = ["The answer is (B).", r"\boxed{\text{Paris}}", "Paris", "C is wrong, so B", "A"]
    bill = (await ask(client, fake, samples, QUESTION)).json()["kinetics"]
    assert (bill["answer"], bill["answer_kind"]) == ("B", "choice")
    assert [vote["count"] for vote in bill["votes"]] == [4, 1]


async def test_a_stated_kind_is_followed(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    samples = ["The answer is 1/2", "The answer is 0.5", "The answer is 1/2."]
    bill = (await ask(client, fake, samples, kind="text")).json()["kinetics"]
    assert ([vote["count"] for vote in bill["votes"]], bill["answer_kind"]) == ([2, 1], "text")
    bill = (await ask(client, fake, ['{"a": 1}', '{ "a":1.0}', '{"a": NaN}'], kind="json")).json()["kinetics"]
    assert (bill["answer"], bill["answer_kind"], bill["no_votes"]) == ('{"a":1}', "json", {"no_answer": 1})


async def test_an_unknown_extractor_is_refused_with_the_nearest(client: httpx.AsyncClient, fake: FakeVllm) -> None:
    response = await ask(client, fake, ["7"], extractor="boxd")
    assert response.status_code == 400
    assert "did you mean 'boxed'" in response.json()["error"]["message"]
