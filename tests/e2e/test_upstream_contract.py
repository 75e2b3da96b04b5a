"""What a well-behaved upstream does, as far as we rely on it: the same of the stand-ins and of a real vLLM."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinetics_serve.cost import KVPolicy
from kinetics_serve.engine.info import read_info
from kinetics_serve.engine.sparse import request_fields
from kinetics_serve.passthrough.worst_case import UNCOUNTED_EVENTS
from tests.e2e.conftest import MODEL as REAL_MODEL
from tests.e2e.conftest import Server
from tests.fake_vllm import MODEL, running_fake_vllm
from tests.faults.upstream import running_upstream
from tests.scripted_upstream import STREAM, Piece, sample, scripted, token

Json = dict[str, Any]

MESSAGES = [{"role": "user", "content": "Count from one to a thousand."}]
STREAMED: Json = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "seed": 1}
NEVER_ENDS = {"ignore_eos": True, "temperature": 0.7}
"""Of a real model; the stand-ins take it and don't mind."""


@dataclass(frozen=True)
class Upstream:
    """idle: whether it works on nothing. slowly: makes its next stream last, where it wouldn't of itself."""

    client: httpx.AsyncClient
    model: str
    idle: Callable[[], bool]
    slowly: Callable[[], None] = lambda: None

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json={"model": self.model, **body})

    async def chunks(self, path: str, **body: Any) -> list[Json]:
        """Of a stream that has ended as streams do."""
        response = await self.post(path, **STREAMED, **body)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.endswith("data: [DONE]\n\n")
        *events, _ = [event.removeprefix("data: ") for event in response.text.split("\n\n") if event]
        return [json.loads(event) for event in events]


@pytest.fixture
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    async with AsyncExitStack() as stack:

        async def client(url: str) -> httpx.AsyncClient:
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=120))

        if request.param == "a real vLLM":
            server: Server = request.getfixturevalue("server")
            yield Upstream(await client(server.engine_url), REAL_MODEL, lambda: server.engine_running() == 0)
        elif request.param == "tests/fake_vllm":
            fake = stack.enter_context(running_fake_vllm(tmp_path))
            yield Upstream(
                await client(fake.url), MODEL, lambda: fake.aborted == 1, lambda: vars(fake).update(token_s=0.05)
            )
        elif request.param == "tests/faults/upstream":
            faulty = stack.enter_context(running_upstream(tmp_path))
            faulty.token_s = 0.01
            yield Upstream(
                await client(faulty.url), MODEL, lambda: faulty.open == 0, lambda: vars(faulty).update(token_s=0.1)
            )
        else:
            told = await stack.enter_async_context(scripted(tmp_path))
            told.says(sample("56"))
            slow: list[Piece] = [piece for number in range(1, 200) for piece in (token("a ", number), 0.1)]
            yield Upstream(await client(told.url), MODEL, lambda: told.open == 0, lambda: told.says([STREAM, *slow]))


def of(*names: str) -> pytest.MarkDecorator:
    """The stand-ins that take part, and a real vLLM."""
    return pytest.mark.parametrize(
        "upstream", [*names, pytest.param("a real vLLM", marks=pytest.mark.e2e)], indirect=True
    )


every_one = of("tests/fake_vllm", "tests/faults/upstream", "tests/scripted_upstream")
those_that_generate = of("tests/fake_vllm", "tests/faults/upstream")
the_whole_api = of("tests/fake_vllm")
both_paths = pytest.mark.parametrize(
    ("path", "prompt"),
    [("/v1/chat/completions", {"messages": MESSAGES}), ("/v1/completions", {"prompt": "One, two,"})],
)


def tokens_of(chunk: Json) -> int:
    return int(chunk["usage"]["completion_tokens"])


@every_one
async def test_it_is_healthy_and_lists_its_models(upstream: Upstream) -> None:
    assert (await upstream.client.get("/health")).status_code == 200
    cards = (await upstream.client.get("/v1/models")).json()["data"]
    (card,) = (card for card in cards if card["id"] == upstream.model)
    assert (Path(card["root"]) / "config.json").exists()
    assert card["max_model_len"] > 1000


@every_one
async def test_a_chat_stream_counts_ends_and_sums_up(upstream: Upstream) -> None:
    *chunks, total = await upstream.chunks("/v1/chat/completions", messages=MESSAGES, max_tokens=12)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    counts = [tokens_of(chunk) for chunk in chunks]
    assert counts == sorted(counts)
    assert len(chunks) <= counts[-1] + UNCOUNTED_EVENTS
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] in ("stop", "length")
    assert not any(reasons[:-1])
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert (total["choices"], tokens_of(total)) == ([], counts[-1])


@the_whole_api
async def test_a_text_stream_counts_ends_and_sums_up(upstream: Upstream) -> None:
    *chunks, total = await upstream.chunks("/v1/completions", prompt="One, two,", max_tokens=12, **NEVER_ENDS)
    counts = [tokens_of(chunk) for chunk in chunks]
    assert counts == sorted(counts)
    assert len(chunks) <= counts[-1] + UNCOUNTED_EVENTS
    assert chunks[-1]["choices"][0]["finish_reason"]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert (total["choices"], tokens_of(total)) == ([], counts[-1])


@the_whole_api
@both_paths
async def test_it_tells_of_as_many_tokens_at_a_time_as_it_is_asked_to(
    upstream: Upstream, path: str, prompt: Json
) -> None:
    """The first at once: a sample that is cut short may have generated fewer than the interval beyond those told.
    vLLM tells of two of its steps in one chunk where its front-end is the slower one, so that some may be missing."""
    *chunks, total = await upstream.chunks(path, **prompt, stream_interval=4, max_tokens=7, **NEVER_ENDS)
    told = sorted({tokens_of(chunk) for chunk in chunks if tokens_of(chunk)})
    assert told[-1] == 7
    assert set(told) <= {1, 5, 7}
    assert tokens_of(total) == 7


@the_whole_api
@pytest.mark.parametrize("interval", [1, 4])
async def test_every_token_of_a_chat_has_its_log_probabilities(upstream: Upstream, interval: int) -> None:
    wanted = {"logprobs": True, "top_logprobs": 3, "stream_interval": interval}
    *chunks, _ = await upstream.chunks("/v1/chat/completions", messages=MESSAGES, max_tokens=6, **wanted, **NEVER_ENDS)
    tokens = [token for chunk in chunks for token in (chunk["choices"][0].get("logprobs") or {}).get("content", ())]
    assert len(tokens) == 6
    assert all(token["logprob"] <= 0 and len(token["top_logprobs"]) >= 3 for token in tokens)


@the_whole_api
@pytest.mark.parametrize("interval", [1, 4])
async def test_every_token_of_a_text_has_its_log_probabilities(upstream: Upstream, interval: int) -> None:
    wanted = {"logprobs": 3, "stream_interval": interval}
    *chunks, _ = await upstream.chunks("/v1/completions", prompt="One, two,", max_tokens=6, **wanted, **NEVER_ENDS)
    tokens = [top for chunk in chunks for top in (chunk["choices"][0].get("logprobs") or {}).get("top_logprobs", ())]
    assert len(tokens) == 6
    assert all(len(top) >= 3 and all(logprob <= 0 for logprob in top.values()) for top in tokens)


@the_whole_api
async def test_a_chat_stream_opens_with_its_role(upstream: Upstream) -> None:
    first, *_ = await upstream.chunks("/v1/chat/completions", messages=MESSAGES, max_tokens=2)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert tokens_of(first) == 0


@those_that_generate
@pytest.mark.parametrize("stream", [False, True])
async def test_a_sample_that_max_tokens_ends_says_so(upstream: Upstream, stream: bool) -> None:
    body = {"messages": MESSAGES, "max_tokens": 5, **NEVER_ENDS}
    if stream:
        *_, last, total = await upstream.chunks("/v1/chat/completions", **body)
    else:
        last = total = (await upstream.post("/v1/chat/completions", **body)).json()
    assert last["choices"][0]["finish_reason"] == "length"
    assert tokens_of(total) == 5


@the_whole_api
@both_paths
async def test_of_several_completions_each_chunk_counts_its_own_and_the_end_all(
    upstream: Upstream, path: str, prompt: Json
) -> None:
    *chunks, total = await upstream.chunks(path, **prompt, n=2, max_tokens=6, **NEVER_ENDS)
    last = {chunk["choices"][0]["index"]: tokens_of(chunk) for chunk in chunks}
    assert last == {0: 6, 1: 6}
    assert (total["choices"], tokens_of(total)) == ([], 12)
    whole = (await upstream.post(path, **prompt, n=2, max_tokens=6, **NEVER_ENDS)).json()
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    assert tokens_of(whole) == 12


@every_one
async def test_a_prompt_has_as_many_tokens_as_it_says_when_asked(upstream: Upstream) -> None:
    counted = (await upstream.post("/tokenize", messages=MESSAGES)).json()
    first, *_ = await upstream.chunks("/v1/chat/completions", messages=MESSAGES, max_tokens=12)
    assert counted["count"] == first["usage"]["prompt_tokens"]


@the_whole_api
async def test_it_says_how_it_keeps_its_cache_and_what_runs(upstream: Upstream) -> None:
    said = (await upstream.client.get("/metrics")).text
    assert read_info(said).kv_block
    assert any(line.startswith("vllm:num_requests_running") for line in said.splitlines())


@the_whole_api
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wrong", [{"temperature": 3}, {"n": 0}, {"max_tokens": "many"}])
async def test_what_it_refuses_it_refuses_as_400_with_a_message(upstream: Upstream, wrong: Json, stream: bool) -> None:
    response = await upstream.post("/v1/chat/completions", messages=MESSAGES, stream=stream, **wrong)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == 400
    assert next(iter(wrong)) in error["message"]


@the_whole_api
async def test_a_kv_budget_comes_with_a_request(upstream: Upstream) -> None:
    fields = request_fields({}, KVPolicy(budget=256))
    response = await upstream.post("/v1/chat/completions", messages=MESSAGES, max_tokens=4, **fields)
    assert response.status_code == 200, response.text


@every_one
async def test_a_client_that_leaves_ends_its_request(upstream: Upstream) -> None:
    upstream.slowly()
    body = {"model": upstream.model, "messages": MESSAGES, "max_tokens": 1000, **STREAMED, **NEVER_ENDS}
    async with upstream.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert await anext(response.aiter_bytes())
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(upstream.idle):
            await asyncio.sleep(0.05)
