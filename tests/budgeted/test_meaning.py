"""Votes of free text, grouped by what a model says that it means."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import Price, read_config
from tests.arms import PAPER_B200
from tests.fake_vllm import CONFIG, MODEL, OTHER_MODEL, PROMPT_TOKENS, FakeVllm, running_fake_vllm
from tests.serving import serving

SAID = ["It is Paris", "Rome", "The capital is Paris", "Paris, in France", "the capital is paris"]
"""What the samples say, by their seeds."""

PRICE = Price(read_config(CONFIG, "fake"), 562.5)
JUDGE = {"kind": "judge", "model": OTHER_MODEL}
EMBEDDING = {"kind": "embedding", "model": OTHER_MODEL, "threshold": 0.95}


def follows(given: str, claim: str) -> bool:
    """All of Paris say the same, but that it is in France only follows from itself."""
    return ("Paris" in given) == ("Paris" in claim) and ("France" in given or "France" not in claim)


@pytest.fixture(scope="module")
def module_fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.tokens = 1
        fake.word = lambda seed: SAID[seed % len(SAID)]
        fake.embedding = lambda text: [3.0, 1.0 if "France" in text else 0.0] if "aris" in text else [0.0, 2.0]
        yield fake


@pytest.fixture
def fake(module_fake: FakeVllm) -> FakeVllm:
    module_fake.requests.clear()
    module_fake.follows = follows
    return module_fake


async def ask(client: httpx.AsyncClient, meaning: dict[str, Any], **kinetics: Any) -> httpx.Response:
    answer = {"kind": "text", "extractor": "last_line", "meaning": meaning}
    kinetics = {
        "budget": {"samples": 200},
        "strategy": "self_consistency",
        "max_samples": 5,
        "answer": answer,
    } | kinetics
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 32, "seed": 0, "kinetics": kinetics}
    return await client.post("/v1/chat/completions", json=body)


def counts(bill: dict[str, Any]) -> dict[str, int]:
    return {vote["answer"]: vote["count"] for vote in bill["votes"]}


async def test_texts_of_which_each_follows_from_the_other_are_one_answer(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        bill = (await ask(client, JUDGE)).json()["kinetics"]
    assert counts(bill) == {"It is Paris": 3, "Rome": 1, "Paris, in France": 1}
    assert bill["answer_kind"] == "text"


async def test_texts_whose_embeddings_are_near_are_one_answer(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        strict = (await ask(client, EMBEDDING)).json()["kinetics"]
        loose = (await ask(client, EMBEDDING | {"threshold": 0.94})).json()["kinetics"]
    assert counts(strict) == {"It is Paris": 3, "Rome": 1, "Paris, in France": 1}
    assert counts(loose) == {"It is Paris": 4, "Rome": 1}


async def test_what_comparing_cost_is_on_the_bill_and_inside_the_budget(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        judged = (await ask(client, JUDGE)).json()["kinetics"]
        asked = [body for body in fake.sent("/v1/chat/completions") if "structured_outputs" in body]
        embedded = (await ask(client, EMBEDDING)).json()["kinetics"]
        plain = (await ask(client, JUDGE, answer={"kind": "text", "extractor": "last_line"})).json()["kinetics"]
    each = PRICE.eflops(PRICE.sample(PROMPT_TOKENS, 1))
    assert judged["meaning"] == {"kind": "judge", "spent_eflops": pytest.approx(len(asked) * each, rel=1e-6)}
    embeddings = len(fake.sent("/v1/embeddings"))
    assert embeddings == 4  # one answer was there already, but for its case
    each = PRICE.eflops(PRICE.sample(7, 0))
    assert embedded["meaning"] == {"kind": "embedding", "spent_eflops": pytest.approx(embeddings * each, rel=1e-6)}
    for bill in (judged, embedded):
        assert bill["meaning"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]
    assert "meaning" not in plain


async def test_comparisons_are_reserved_with_each_sample(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        plain = (await ask(client, JUDGE, budget={"samples": 2}, answer={"kind": "text"})).json()["kinetics"]
        few = (await ask(client, JUDGE, budget={"samples": 2})).json()
        judged = (await ask(client, JUDGE, budget={"eflops": 10 * plain["budget_eflops"]})).json()["kinetics"]
    assert plain["samples_started"] == 2
    assert few["error"]["code"] == "budget_too_small"
    assert judged["spent_eflops"] <= judged["budget_eflops"]


async def test_samples_are_compared_with_the_first_groups_only(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        answer = {"kind": "text", "extractor": "last_line", "meaning": JUDGE | {"max_groups": 1}}
        bill = (await ask(client, JUDGE, answer=answer)).json()["kinetics"]
    assert sum(counts(bill).values()) == len(SAID)
    sent = fake.sent("/v1/chat/completions")
    asked = [body["messages"][0]["content"] for body in sent if "structured_outputs" in body]
    assert asked
    # Whichever sample came first made the first group: it is in every question.
    assert any(all(said in question for question in asked) for said in SAID)


async def test_a_scorer_and_a_meaning_are_billed_apart(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        scorer = {"kind": "reward_model", "model": OTHER_MODEL}
        bill = (await ask(client, JUDGE, strategy="weighted_vote", scorer=scorer)).json()["kinetics"]
    scored = len(fake.sent("/classify"))
    assert bill["scorer"]["spent_eflops"] == pytest.approx(
        scored * PRICE.eflops(PRICE.sample(PROMPT_TOKENS + 5, 0)), rel=1e-6
    )
    assert bill["meaning"]["spent_eflops"] > 0


@pytest.mark.parametrize(
    ("kind", "meaning", "words"),
    [
        ("math", JUDGE, 'state it with the kind "text"'),
        ("text", {"kind": "embedding"}, "Field required"),
        ("text", {"kind": "oracle"}, "judge"),
        ("text", {"kind": "embedding", "model": OTHER_MODEL, "threshold": 0.0}, "greater than 0"),
        ("text", {"kind": "judge", "model": "absent"}, "'absent' is not served here"),
    ],
)
async def test_a_meaning_that_can_not_be_used_is_refused(
    fake: FakeVllm, kind: str, meaning: dict[str, Any], words: str
) -> None:
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        response = await ask(client, {}, answer={"kind": kind, "meaning": meaning})
    assert response.status_code in (400, 404)
    assert words in response.json()["error"]["message"]
    assert response.json()["error"]["param"].startswith("kinetics.answer")
    assert not fake.sent("/v1/chat/completions")


async def test_a_model_that_can_not_compare_fails_the_request_clearly(fake: FakeVllm) -> None:
    embedding, fake.embedding = fake.embedding, lambda text: [0.0, 0.0]
    try:
        async with serving(create_app([fake.url], PAPER_B200)) as client:
            response = await ask(client, EMBEDDING)
    finally:
        fake.embedding = embedding
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "scorer_failed"
    assert response.json()["error"]["param"] == "kinetics.answer.meaning"
