"""Sparse attention, which an embedded engine has unless it is told otherwise."""

from typing import Any

import httpx
import pytest

from tests.e2e.conftest import MODEL, Server

STORY = "".join(f"On day {day} the ship sailed {day * day % 97} miles to the west.\n" for day in range(1, 130))
LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": f"{STORY}How far did the ship sail on day 70?"}],
    "max_tokens": 24,
    "temperature": 0.7,
    "seed": 1,
}


def bill(server: Server, kv_budget: Any) -> dict[str, Any]:
    kinetics = {"budget": {"samples": 1}, "strategy": "single", "kv_budget": kv_budget}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=LONG | {"kinetics": kinetics}, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer["kinetics"] | {"tokens": answer["usage"]["completion_tokens"]}


def test_a_smaller_kv_budget_reaches_the_engine_and_the_bill(server: Server) -> None:
    bill(server, "dense")  # from here on the prompt is in the prefix cache
    dense, own, less = (bill(server, kv_budget) for kv_budget in ("dense", "auto", 256))
    assert (dense["kv_budget"], own["kv_budget"], less["kv_budget"]) == ("dense", 1024, 256)
    read = [each["memory_bytes"] / each["tokens"] for each in (dense, own, less)]
    assert read[0] > 1.4 * read[1] > 1.4 * 1.4 * read[2]


@pytest.mark.parametrize("kv_budget", [-1, "many", 2.5])
def test_the_engine_refuses_a_kv_budget_that_it_cannot_keep(server: Server, kv_budget: Any) -> None:
    request = LONG | {"vllm_xargs": {"kv_budget": kv_budget}}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=request, timeout=60)
    assert response.status_code == 400, response.text
    assert "kv_budget" in response.json()["error"]["message"]
