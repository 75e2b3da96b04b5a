"""What requests over HTTP are charged, and when they are refused for it."""

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from kinetics_serve.runner.run import STREAM_INTERVAL
from tests.fake_vllm import CONTEXT, MODEL, PROMPT_TOKENS, FakeVllm
from tests.ledger.server import QUESTION, VOTE, FrontEnd, bearer, check_error, front_end, leave, run_command
from tests.openapi_document import document_of, undescribed


def test_a_budgeted_request_is_booked_at_what_its_bill_says(server: FrontEnd) -> None:
    key = server.key("budgeted")
    bill = server.ask(key, QUESTION | {"kinetics": VOTE}).json()["kinetics"]
    assert server.spent(key) == {bill["strategy"]: bill["spent_eflops"]}
    usage = server.usage(key)
    assert (usage["tenant"], usage["reserved_eflops"], usage["running_requests"]) == ("budgeted", 0, 0)
    assert usage["window_spent_eflops"] == usage["month_spent_eflops"] == bill["spent_eflops"]
    assert undescribed(document_of(server.url), "UsageAnswer", usage) == []


def test_a_budgeted_stream_is_settled_before_its_client_sees_the_end(server: FrontEnd) -> None:
    key = server.key("stream", concurrency=1)
    for _ in range(5):
        response = server.ask(key, QUESTION | {"kinetics": VOTE, "stream": True})
        assert response.status_code == 200, response.text
        assert response.text.endswith("data: [DONE]\n\n")
    assert server.usage(key)["data"][0]["requests"] == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_without_a_budget_is_metered_by_its_usage(server: FrontEnd, stream: bool) -> None:
    key = server.key(f"plain-{stream}", concurrency=1)
    for _ in range(3):
        assert server.ask(key, QUESTION | {"stream": stream}).status_code == 200
    each = server.eflops(8, cached=4 if stream else 0)
    assert server.spent(key) == {"pass_through": 3 * each}


@pytest.mark.parametrize("n", [3, 3.0, "3"])  # vLLM takes one for the other
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_n_completions_are_paid_n_times(server: FrontEnd, path: str, n: object) -> None:
    key = server.key(f"n-{path.count('chat')}-{n!r}")
    body = {**QUESTION, "n": n} if "chat" in path else {"model": MODEL, "prompt": "hello", "n": n}
    response = server.ask(key, body, path)
    assert response.status_code == 200, response.text
    assert server.spent(key) == {"pass_through": 3 * server.eflops(8)}


def test_a_kv_budget_is_charged_where_the_engine_is_sparse(fake: FakeVllm, folder: Path, tmp_path: Path) -> None:
    fake.tokens = 2000
    fake.kv_budget = 512
    body = QUESTION | {"max_tokens": 2000}
    spent = []
    with front_end(fake, str(tmp_path / "ledger.db"), folder, tmp_path / "log") as server:
        for number, xargs in enumerate(({}, {"kv_budget": 256}, {"kv_budget": 0})):
            key = server.key(str(number))
            assert server.ask(key, body | {"vllm_xargs": xargs}).status_code == 200
            spent.append(server.spent(key)["pass_through"])
        check_error(server.ask(key, body | {"vllm_xargs": {"kv_budget": "0"}}), 400, "invalid_request")
    assert spent[1] < spent[0] < spent[2] == server.eflops(2000)


def test_a_refusal_of_the_engines_costs_nothing_and_keeps_its_words(server: FrontEnd) -> None:
    key = server.key("refused")
    for stream in (False, True):
        response = server.ask(key, QUESTION | {"temperature": 9, "stream": stream})
        assert response.status_code == 400
        assert response.json()["error"]["message"] == "temperature must be at most 2"
    assert server.spent(key) == {}


@pytest.mark.parametrize(
    "options", [{}, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}]
)
def test_a_metered_stream_is_the_engines_own(server: FrontEnd, options: dict[str, bool]) -> None:
    key = server.key("passed")
    body = QUESTION | {"stream": True, "stream_options": options}
    ours = server.ask(key, body)
    theirs = httpx.post(f"{server.fake.url}/v1/chat/completions", json=body)
    assert ours.content == theirs.content
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_the_openai_sdk_streams_and_answers_with_a_key(server: FrontEnd) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=server.key("sdk"), max_retries=0)
    assert client.chat.completions.create(**QUESTION).choices[0].message.content == "word " * 8
    chunks = list(client.chat.completions.create(**QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "word " * 8


def test_a_request_beyond_the_quota_is_told_when_to_come_back(server: FrontEnd) -> None:
    each = server.eflops(100)
    key = server.key("window", window_eflops=each * 3 // 2, window_s=3600)
    server.fake.tokens = 100
    assert server.ask(key, QUESTION).status_code == 200
    for body in (QUESTION, QUESTION | {"stream": True}, QUESTION | {"kinetics": {"budget": {"eflops": each}}}):
        response = server.ask(key, body)
        check_error(response, 429, "quota_exceeded", "'window'", "3600 s", str(each))
        assert 3590 < int(response.headers["retry-after"]) <= 3615
    assert server.spent(key) == {"pass_through": server.eflops(100)}


@pytest.mark.parametrize("limit", ["request_eflops", "window_eflops", "month_eflops"])
def test_a_request_above_the_maximum_is_told_the_maximum(server: FrontEnd, limit: str) -> None:
    key = server.key(f"max-{limit}", **{limit: 10**9})
    for body in (QUESTION | {"kinetics": {"budget": {"eflops": 1e30}}}, QUESTION | {"max_tokens": 4000}):
        check_error(server.ask(key, body), 400, "invalid_request", "1000000000")
    assert server.fake.sent("/v1/chat/completions") == []


@pytest.mark.parametrize(
    "more", [{"n": "nine"}, {"n": 1.5}, {"n": 0}, {"max_tokens": [9]}, {"stream": "true"}, {"cache_salt": 7}]
)
def test_what_would_dodge_the_meter_is_refused(server: FrontEnd, more: dict[str, Any]) -> None:
    check_error(server.ask(server.key("dodge"), QUESTION | more), 400, "invalid_request")
    assert server.fake.sent("/v1/chat/completions") == []


@pytest.mark.parametrize(
    ("body", "completions"),
    [
        ({"prompt": "a " * 4000, "truncate_prompt_tokens": 1}, 1),
        ({"prompt": "a", "prompt_embeds": ["e"] * 20}, 21),
        ({"prompt_embeds": "e"}, 1),
    ],
)
def test_what_makes_room_for_more_than_the_prompt_says_is_reserved(
    server: FrontEnd, body: dict[str, Any], completions: int
) -> None:
    """Of a prompt that fills the context, as the engine counts it before it cuts it off."""
    server.fake.counted = CONTEXT
    try:
        least = completions * server.eflops(900) - server.eflops(0)
        key = server.key(f"room-{len(body)}-{completions}", request_eflops=int(0.9 * least))
        refused = server.ask(key, {"model": MODEL, "max_tokens": 900, **body}, "/v1/completions")
        check_error(refused, 400, "invalid_request", "may cost up to")
    finally:
        server.fake.counted = PROMPT_TOKENS


def test_the_limit_that_the_engine_follows_is_reserved(server: FrontEnd) -> None:
    key = server.key("two-limits", request_eflops=server.eflops(50))
    assert server.ask(key, QUESTION | {"max_tokens": 4000, "max_completion_tokens": 50}).status_code == 200
    check_error(server.ask(key, QUESTION | {"max_tokens": 1, "max_completion_tokens": 51}), 400, "invalid_request")
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 100, "max_completion_tokens": 1}
    check_error(server.ask(key, body, "/v1/completions"), 400, "invalid_request")


@pytest.mark.parametrize("stream", [False, True])
def test_a_redirection_costs_nothing(server: FrontEnd, stream: bool) -> None:
    key = server.key(f"redirected-{stream}")
    server.fake.status = 302
    try:
        check_error(server.ask(key, QUESTION | {"stream": stream}), 503, "engine_unavailable", "302")
    finally:
        server.fake.status = 200
    assert server.spent(key) == {}


async def test_a_client_that_leaves_pays_for_what_its_stream_generated(server: FrontEnd) -> None:
    key = server.key("leaver")
    server.fake.token_s, server.fake.tokens = 0.05, 100
    await leave(server, key, QUESTION | {"stream": True}, events=10)  # the first has no token
    spent = (await asyncio.to_thread(server.spent, key))["pass_through"]
    assert server.eflops(9) <= spent <= server.eflops(server.fake.generated)


async def test_a_client_that_does_not_read_its_stream_pays_for_what_it_did_not_see(server: FrontEnd) -> None:
    """The engine goes on while the stream waits; what it generated meanwhile is in no event that was read.

    So all is charged that was reserved, unless the front-end came to read all of it before it saw that the client left.
    """
    key = server.key("unread")
    server.fake.tokens, server.fake.word = 4000, lambda seed: "x" * 50_000  # sockets hold few of these
    body = QUESTION | {"stream": True, "max_tokens": 4000}
    try:
        async with httpx.AsyncClient(timeout=None, base_url=server.url, headers=bearer(key)) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                pieces = answer.aiter_raw()
                await anext(pieces)
                await asyncio.sleep(5)
            spent = (await asyncio.to_thread(server.spent, key))["pass_through"]
            assert server.eflops(server.fake.generated) <= spent <= server.eflops(4000)
            assert server.fake.generated > 50  # more than the sockets hold
    finally:
        server.fake.word = lambda seed: "word "


async def test_a_client_that_leaves_before_the_answer_pays_the_reservation_and_no_more(server: FrontEnd) -> None:
    key = server.key("unknown")
    server.fake.token_s, server.fake.tokens = 0.05, 100
    await leave(server, key, QUESTION)
    assert await asyncio.to_thread(server.spent, key) == {"pass_through": server.eflops(100)}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_that_passes_in_the_queue_costs_nothing(
    fake: FakeVllm, folder: Path, tmp_path: Path, stream: bool
) -> None:
    one_at_a_time = ("--max-inflight-samples", "1")
    with front_end(fake, str(tmp_path / "ledger.db"), folder, tmp_path / "log", *one_at_a_time) as server:
        first, late = server.key("first"), server.key("late")
        with fake.holding():
            running = asyncio.create_task(asyncio.to_thread(server.ask, first, QUESTION | {"stream": True}))
            while not fake.sent("/v1/chat/completions"):
                await asyncio.sleep(0.01)
            soon = {"budget": {"samples": 1}, "strategy": "single", "deadline_s": 0.5}
            refused = await asyncio.to_thread(server.ask, late, QUESTION | {"stream": stream, "kinetics": soon})
        check_error(refused, 429, "overloaded", "deadline")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await running).status_code == 200
        assert server.spent(late) == {}


async def test_a_client_that_leaves_a_budgeted_request_pays_for_what_it_generated(server: FrontEnd) -> None:
    key = server.key("budget-leaver")
    server.fake.token_s, server.fake.tokens = 0.05, 100
    await leave(server, key, QUESTION | {"kinetics": VOTE, "stream": True}, events=4)
    (spent,) = (await asyncio.to_thread(server.spent, key)).values()
    assert 0 < spent <= server.eflops(server.fake.generated + 2 * STREAM_INTERVAL) * 4


def test_the_administrator_gets_everybodys_usage_as_csv(server: FrontEnd) -> None:
    key = server.key("csv")
    server.ask(key, QUESTION)
    rows = list(csv.DictReader(io.StringIO(run_command("usage", "--csv", "--ledger", server.ledger))))
    (mine,) = [row for row in rows if row["tenant"] == "csv"]
    assert (mine["model"], mine["strategy"], mine["requests"]) == (MODEL, "pass_through", "1")
    assert int(mine["eflops"]) == server.spent(key)["pass_through"]
    alone = run_command("usage", "--csv", "--tenant", "csv", "--ledger", server.ledger)
    assert len(alone.splitlines()) == 2


def test_usage_can_be_asked_by_day(server: FrontEnd) -> None:
    key = server.key("days")
    server.ask(key, QUESTION)
    url = f"{server.url}/v1/kinetics/usage"
    assert httpx.get(url, params={"until": "2020-01-01"}, headers=bearer(key)).json()["data"] == []
    assert httpx.get(url, params={"since": "2020-01-01"}, headers=bearer(key)).json()["data"] != []
    check_error(httpx.get(url, params={"since": "yesterday"}, headers=bearer(key)), 400, "invalid_request")
