"""Votes of samples that are programs, by what these do."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.requests.services import Settings
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.serving import serving

PROGRAMS = [
    "```python\nprint(sum(map(int, input().split())))\n```",
    "Add them up:\n```python\na, b = input().split()\nprint(float(a) + float(b))\n```",
    "```python\nprint(max(map(int, input().split())))\n```",
    "```python\nprint(undefined)\n```",
    "```python\nwhile True: pass\n```",
    "I can't do that.",
]
TESTS = {"inputs": ["1 2", "3 4"], "time_limit_s": 1.0}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("model")) as fake:
        fake.tokens = 1
        fake.word = lambda seed: PROGRAMS[seed % len(PROGRAMS)]
        yield fake


async def ask(client: httpx.AsyncClient, answer: dict[str, Any], path: str = "/v1/chat/completions") -> httpx.Response:
    kinetics = {"budget": {"samples": 20}, "strategy": "self_consistency", "max_samples": 6, "include_samples": True}
    messages = [{"role": "user", "content": "Add two numbers."}]
    body = {
        "model": MODEL,
        "messages": messages,
        "max_tokens": 32,
        "seed": 0,
        "kinetics": kinetics | {"answer": answer},
    }
    return await client.post(path, json=body)


async def test_programs_vote_by_what_they_do_and_those_that_fail_say_why(fake: FakeVllm) -> None:
    async with serving(create_app([fake.url], PAPER_B200, settings=Settings(allow_code=True))) as client:
        bill = (await ask(client, {"kind": "code", "tests": TESTS})).json()["kinetics"]
    assert [vote["count"] for vote in bill["votes"]] == [2, 1]
    assert bill["answer"] == "print(sum(map(int, input().split())))"
    assert bill["answer_kind"] == "code"
    reasons = [sample["no_vote"] for sample in bill["samples"]]
    assert reasons == [None, None, None, "program_failed", "program_timed_out", "no_answer"]
    assert bill["no_votes"] == {"program_failed": 1, "program_timed_out": 1, "no_answer": 1}


async def test_no_program_runs_unless_the_administrator_allows_it(fake: FakeVllm) -> None:
    fake.requests.clear()
    async with serving(create_app([fake.url], PAPER_B200)) as client:
        for path in ("/v1/chat/completions", "/v1/kinetics/plan"):
            response = await ask(client, {"kind": "code", "tests": TESTS}, path)
            assert response.status_code == 403
            assert "--allow-code" in response.json()["error"]["message"]
            assert response.json()["error"]["param"] == "kinetics.answer.kind"
    assert not fake.sent("/v1/chat/completions")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"kind": "code"}, "state both or neither"),
        ({"kind": "math", "tests": TESTS}, "state both or neither"),
        ({"kind": "code", "tests": {"inputs": []}}, "at least 1 item"),
        ({"kind": "code", "tests": {"inputs": [[1, 2]]}}, "lists of arguments need a function"),
        ({"kind": "code", "tests": {"inputs": ["1"], "function": "add"}}, "the list of its arguments"),
        ({"kind": "code", "tests": {"inputs": ["1"], "function": "os.system"}}, "pattern"),
        ({"kind": "code", "tests": {"inputs": ["1"] * 33}}, "at most 32"),
        ({"kind": "code", "tests": {"inputs": ["1" * (1 << 20), "1"]}}, "at most 1048576 are allowed"),
        ({"kind": "code", "tests": {"inputs": ["1"], "time_limit_s": 60}}, "less than or equal to 10"),
    ],
)
async def test_tests_that_make_no_sense_are_refused(fake: FakeVllm, answer: dict[str, Any], words: str) -> None:
    async with serving(create_app([fake.url], PAPER_B200, settings=Settings(allow_code=True))) as client:
        response = await ask(client, answer)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


async def test_a_function_of_each_sample_is_called(fake: FakeVllm) -> None:
    bodies = ["def add(a, b): return a + b", "add = lambda a, b: b + a", "def add(a, b): return a * b"]
    word, fake.word = fake.word, lambda seed: f"```python\n{bodies[seed % 3]}\n```"
    tests = {"inputs": [[1, 2], [2, 2]], "function": "add"}
    try:
        async with serving(create_app([fake.url], PAPER_B200, settings=Settings(allow_code=True))) as client:
            bill = (await ask(client, {"kind": "code", "tests": tests})).json()["kinetics"]
    finally:
        fake.word = word
    assert [vote["count"] for vote in bill["votes"]] == [4, 2]
