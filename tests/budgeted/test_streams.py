"""What a client of a budgeted stream sees while samples run."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.budgeted.answer import TAIL_CHARACTERS
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm
from tests.front_ends import listening

VOTE = {"budget": {"samples": 3}, "strategy": "majority_vote", "answer": {"extractor": "last_line"}}
ASKS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 20}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 20}),
]


def one_by_one(vllm: FakeVllm, blocks: list[str]) -> bool:
    """Each token comes after the progress of the one before, until that has been told three times."""
    return len(progress(blocks)) >= min(3, vllm.generated)


def after_comments(vllm: FakeVllm, blocks: list[str]) -> bool:
    """All but the first token come after two comments."""
    return vllm.generated == 0 or blocks.count(": keep-alive") >= 2


def stream(
    url: str,
    path: str,
    body: dict[str, Any],
    vllm: FakeVllm | None = None,
    goes_ahead: Callable[[FakeVllm, list[str]], bool] = one_by_one,
    **kinetics: Any,
) -> list[str]:
    """The blocks of the stream. goes_ahead: when `vllm` gives its next token, by the blocks that have come."""
    body = {"model": MODEL, "stream": True, "kinetics": VOTE | kinetics} | body
    blocks = [""]
    if vllm is not None:
        vllm.goes_ahead = lambda: goes_ahead(vllm, blocks[:-1])
    with httpx.stream("POST", url + path, json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for piece in answer.iter_text():
            blocks[-1:] = (blocks[-1] + piece).split("\n\n")
    return blocks[:-1]


def objects(blocks: list[str]) -> list[dict[str, Any]]:
    lines = [line for block in blocks for line in block.split("\n")]
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def progress(blocks: list[str]) -> list[dict[str, Any]]:
    states = [event["kinetics"] for event in objects(blocks) if "kinetics" in event]
    return [state for state in states if "stop_reason" not in state]


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_progress_says_who_leads_what_is_spent_and_how_many_run(
    url: str, vllm: FakeVllm, path: str, body: dict[str, Any]
) -> None:
    states = progress(stream(url, path, body, vllm))
    assert len(states) >= 3
    assert {"spent_eflops", "budget_eflops", "samples_running", "votes"} <= set(states[0])
    assert states[0]["samples_running"] > 0
    spent = [state["spent_eflops"] for state in states]
    assert spent == sorted(spent)


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_progress_tells_of_every_sample_where_the_request_wants_to_see_them(
    url: str, vllm: FakeVllm, path: str, body: dict[str, Any]
) -> None:
    vllm.word = lambda seed: "twelve chars"
    states = progress(stream(url, path, body, vllm, include_samples=True))
    tokens = [[sample["tokens"] for sample in state["samples"]] for state in states]
    assert len(tokens) >= 3
    for before, after in pairwise(tokens):
        assert all(later >= earlier for earlier, later in zip(before, after, strict=False))
    assert max(tokens[-1]) > 0
    for state in states:
        assert len(state["samples"]) == state["samples_started"]
        running = [sample for sample in state["samples"] if sample["status"] == "running"]
        assert len(running) == state["samples_running"]
        for sample in state["samples"]:
            assert sample["tail"] == ("twelve chars" * sample["tokens"])[-TAIL_CHARACTERS:]
            assert sample["max_tokens"] == 20
        now = state["so_far"]
        assert state["spent_eflops"] <= now["eflops"] <= state["spent_eflops"] + state["reserved_eflops"]
        parts = now["compute_flops"] + now["memory_bytes"] * now["arithmetic_intensity"]
        assert 0 <= now["eflops"] - parts <= len(state["samples"]) + 1e-9 * parts


def test_progress_is_short_where_the_request_does_not(url: str, vllm: FakeVllm) -> None:
    for state in progress(stream(url, *ASKS[0], vllm)):
        assert not {"samples", "so_far"} & state.keys()


@pytest.mark.parametrize(("path", "body"), ASKS[:2])
def test_no_chunk_has_a_choice_before_the_text(url: str, vllm: FakeVllm, path: str, body: dict[str, Any]) -> None:
    chunks = objects(stream(url, path, body, vllm))
    first = next(number for number, chunk in enumerate(chunks) if chunk["choices"])
    assert first >= 3
    assert "word" in json.dumps(chunks[first]["choices"])
    assert all("kinetics" in chunk for chunk in chunks[:first])


@pytest.mark.parametrize(("path", "body"), ASKS[:2])
def test_progress_can_come_as_events_with_a_name(url: str, vllm: FakeVllm, path: str, body: dict[str, Any]) -> None:
    blocks = stream(url, path, body, vllm, progress="event")
    named = [block for block in blocks if block.startswith("event: kinetics.progress\ndata: {")]
    assert len(named) == len(progress(blocks)) >= 3


@pytest.mark.parametrize("stated", [{"reasoning_effort": "medium"}, {}])
def test_who_states_no_kinetics_gets_nothing_but_what_openai_sends(
    url: str, vllm: FakeVllm, stated: dict[str, Any]
) -> None:
    vllm.token_s = 0.03
    path, body = ASKS[0]
    headers = {} if stated else {"X-Kinetics-Budget": "1e12"}
    answer = httpx.post(url + path, json={"model": MODEL, "stream": True} | body | stated, headers=headers)
    chunks = objects(answer.text.split("\n\n"))
    assert all(chunk["choices"] for chunk in chunks)
    assert "stop_reason" in chunks[-1]["kinetics"]


@pytest.mark.parametrize("progress", [False, True])
def test_a_client_can_do_without_comments(url: str, vllm: FakeVllm, progress: bool) -> None:
    vllm.token_s, vllm.tokens = 0.7, 2
    path, body = ASKS[0]
    blocks = stream(url, path, body, strategy="single", progress=progress, keep_alive=False)
    assert not [block for block in blocks if block.startswith(":")]
    assert "word" in blocks[-3]


def test_a_server_can_do_without_comments(vllm: FakeVllm) -> None:
    vllm.token_s, vllm.tokens = 0.7, 2
    path, body = ASKS[0]
    with listening(create_app([vllm.url], PAPER_B200, settings=Settings(keep_alive_s=0))) as url:
        blocks = stream(url, path, body, strategy="single")
    assert not [block for block in blocks if block.startswith(":")]


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_a_client_can_do_without_progress(url: str, vllm: FakeVllm, path: str, body: dict[str, Any]) -> None:
    blocks = stream(url, path, body, vllm, after_comments, progress=False)
    assert progress(blocks) == []
    assert ": keep-alive" in blocks
    assert "word word" in json.dumps(objects(blocks))


@pytest.mark.parametrize(("path", "body"), ASKS)
@pytest.mark.parametrize("progress", [False, True])
def test_silence_is_filled_with_comments(
    url: str, vllm: FakeVllm, path: str, body: dict[str, Any], progress: bool
) -> None:
    blocks = stream(url, path, body, vllm, after_comments, strategy="single", progress=progress)
    assert blocks.count(": keep-alive") >= 2
    assert "word word" in json.dumps(objects(blocks))


def test_a_stream_begins_even_if_no_token_comes(url: str, vllm: FakeVllm) -> None:
    vllm.goes_ahead = lambda: False
    path, body = ASKS[0]
    body = body | {"stream": True, "kinetics": VOTE}
    with httpx.stream("POST", url + path, json=body) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_text())
