"""vLLM's own data parallelism behind a front-end: two engines in one server, and budgets followed in both."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

pytest.importorskip("vllm")

from benchmarks.clients.__main__ import tokenizer_in
from tests.e2e.conftest import Server, running_server
from tests.sparse_backend.engines import llama, save

pytestmark = pytest.mark.e2e

RANKS = (0, 1)
BUDGET = 256
PROMPT = " ".join(f"w{(number * number * 7 + number * 3) % 400}" for number in range(1400))
"""In words that the model knows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a tiny model of random weights: two engines on two cores take long enough to start."""
    folder = tmp_path_factory.mktemp("parallel")
    model = save(llama, folder)
    tokenizer_in(model)
    options = ["--model", str(model), "--kv-budget", str(BUDGET)]
    engine = ["--data-parallel-size", "2", "--max-model-len", "2048"]
    with running_server(folder, *options, "--", *engine, VLLM_CPU_KVCACHE_SPACE="1") as running:
        yield running


def asked(server: Server, rank: int, **more: Any) -> list[float]:
    """Logprobs of what one of the engines generates."""
    body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "logprobs": 1, "ignore_eos": True, **more}
    headers = {"X-data-parallel-rank": str(rank)}
    response = httpx.post(f"{server.engine_url}/v1/completions", json=body, headers=headers, timeout=120)
    assert response.status_code == 200, response.text
    return list(response.json()["choices"][0]["logprobs"]["token_logprobs"])


def test_both_engines_follow_their_own_budget_and_a_requests(server: Server) -> None:
    whole, own, wide = (
        [asked(server, rank, **({} if budget is None else {"vllm_xargs": {"kv_budget": budget}})) for rank in RANKS]
        for budget in (0, None, 512)
    )
    for results in (whole, own, wide):
        assert results[0] == pytest.approx(results[1], abs=1e-3)  # either engine does the same
    for rank in RANKS:
        assert own[rank][0] == pytest.approx(whole[rank][0], abs=1e-3)  # of the prefill, which is dense
        assert own[rank][1:] != pytest.approx(whole[rank][1:], abs=1e-3)
        assert wide[rank][1:] != pytest.approx(own[rank][1:], abs=1e-3)


def bill(server: Server, **kinetics: Any) -> dict[str, Any]:
    """Of a request whose prompt both engines have in their caches."""
    for rank in RANKS:
        asked(server, rank)
    body = {"prompt": PROMPT, "max_tokens": 16, "ignore_eos": True, "kinetics": kinetics}
    response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    return dict(response.json()["kinetics"])


def test_samples_are_priced_by_what_both_engines_say_and_run_on_both(server: Server) -> None:
    told = httpx.get(f"{server.engine_url}/metrics").text
    said = re.findall(r'^kinetics_sparse_attention_info\{.*engine="(\d)".*\} 1', told, re.M)
    assert sorted(said) == ["0", "1"]
    dense = bill(server, budget={"samples": 1}, strategy="single", kv_budget="dense")
    own = bill(server, budget={"samples": 1}, strategy="single")
    vote = bill(server, budget={"samples": 6}, strategy="best_of_n", max_samples=6)
    assert (dense["kv_budget"], own["kv_budget"], vote["kv_budget"]) == ("dense", BUDGET, BUDGET)
    assert own["spent_eflops"] < dense["spent_eflops"]
    assert vote["samples_finished"] == 6
    done = re.findall(
        r'^vllm:request_success_total\{engine="(\d)".*\} (\S+)$', httpx.get(f"{server.engine_url}/metrics").text, re.M
    )
    assert {engine for engine, count in done if float(count) > 0} == {"0", "1"}
