"""What a bill says was saved."""

import re

import httpx

from kinetics_serve.api.app import create_app
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm
from tests.front_ends import listening


def test_the_bill_says_what_the_metrics_count_as_saved(vllm: FakeVllm) -> None:
    vllm.kv_budget, vllm.tokens = 112, 300
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 320,
        "kinetics": {"budget": {"samples": 12}, "strategy": "majority_vote", "answer": {"extractor": "last_line"}},
    }
    with listening(create_app([vllm.url], PAPER_B200)) as url:
        bill = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["kinetics"]
        metrics = httpx.get(f"{url}/metrics").text
    assert bill["stop_reason"] == "consensus"
    counted = re.findall(r'^kinetics_eflops_saved_total\{.*reason="(\w+)".*\} (\S+)$', metrics, re.M)
    assert {f"{reason}_eflops": round(float(eflops)) for reason, eflops in counted} == bill["saved"]
    assert min(bill["saved"].values()) > 0
    further = bill["budget_eflops"] - bill["spent_eflops"]
    assert bill["saved"]["early_stop_eflops"] <= further
