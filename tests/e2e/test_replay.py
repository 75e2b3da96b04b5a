"""What a real server decided is what a replay of its own samples decides."""

from typing import Any

import httpx
import pytest

from kinetics_serve.cost import Price, load_architecture
from kinetics_serve.engine.embedded import bundled_model
from kinetics_serve.engine.info import read_info
from kinetics_serve.runner.replay import replay
from kinetics_serve.runner.run import Run
from kinetics_serve.strategies.spec import policy_of
from kinetics_serve.strategies.state import Status
from kinetics_serve.traces.traces import Trial
from tests.arms import PAPER_B200, arm_of
from tests.e2e.conftest import MODEL, Server

MAX_TOKENS = 48


def recorded(sample: dict[str, Any]) -> Trial:
    """A sample of a response as a trial. One that was cancelled would have gone on, to its end at the latest."""
    cancelled = sample["status"] == "cancelled"
    return Trial(
        sample["index"],
        sample["text"],
        MAX_TOKENS if cancelled else sample["tokens"],
        Status.TRUNCATED if cancelled else Status(sample["status"]),
        sample["answer"],
        correct=False,
        confidence=sample["score"],
        empty=not sample["text"].strip(),
    )


@pytest.mark.parametrize("strategy", ["majority_vote", "best_of_n", "self_consistency"])
def test_a_real_servers_samples_replayed_lead_to_the_same_decisions(server: Server, strategy: str) -> None:
    options = {"budget": {"samples": 9}, "strategy": strategy, "max_samples": 6, "answer": {"extractor": "number"}}
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is 6 times 7?"}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0.7,
        "seed": 11,
        "kinetics": options | {"include_samples": True},
    }
    served = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300).json()
    bill = served["kinetics"]
    engine = read_info(httpx.get(f"{server.engine_url}/metrics").text)
    architecture = engine.architecture(load_architecture(bundled_model.bundled_model()))
    price = Price.on(architecture, PAPER_B200)
    kv = engine.kv_policy(architecture)
    assert (kv.budget or "dense") == bill["kv_budget"]
    arm = arm_of(served["usage"]["prompt_tokens"], MAX_TOKENS, 6, kv, price)
    trials = [recorded(sample) for sample in bill["samples"]]
    run = Run(policy_of(strategy, {}), [arm], bill["budget_eflops"])
    finish = replay(run, [trials], [served["usage"]["prompt_tokens_details"]["cached_tokens"]])
    assert (finish.reason, finish.confidence) == (bill["stop_reason"], bill["confidence"])
    assert finish.winner is not None
    assert run.samples[finish.winner].answer == bill["answer"]
    assert len(run.samples) == bill["samples_started"]
    votes = [(vote.answer, vote.count) for vote in run.state.votes]
    assert votes == [(vote["answer"], vote["count"]) for vote in bill["votes"]]
    # In replay all samples decode in step; on a server one may be a step or two ahead of another.
    assert run.account.spent == pytest.approx(bill["spent_eflops"], rel=0.25)
