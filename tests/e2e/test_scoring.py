"""What scorers and forced answers ask of vLLM, asked of a real one."""

from typing import Any

import httpx

from tests.e2e.conftest import MODEL, Server


def ask(server: Server, max_tokens: int, **kinetics: Any) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": max_tokens,
        "temperature": 0.7,
        "seed": 2,
        "kinetics": {"budget": {"samples": 30}, "max_samples": 4, "include_samples": True, **kinetics},
    }
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_a_judge_grades_every_finished_sample_and_its_favourite_wins(server: Server) -> None:
    answer = ask(server, 100, strategy="best_of_n", scorer={"kind": "judge"})
    bill = answer["kinetics"]
    finished = [sample for sample in bill["samples"] if sample["status"] == "finished"]
    assert finished
    assert all(1 <= sample["score"] <= 9 for sample in finished)
    favourite = max(finished, key=lambda sample: (sample["score"], -sample["index"]))
    assert answer["choices"][0]["message"]["content"] == favourite["text"]
    assert 0 < bill["scorer"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]


def test_a_sample_that_runs_out_of_tokens_answers_after_a_cue(server: Server) -> None:
    messages = [{"role": "user", "content": "Explain at length how to multiply 3 by 4."}]
    options = {
        "budget": {"samples": 30},
        "strategy": "self_consistency",
        "max_samples": 2,
        "answer": {"extractor": "number", "force_tokens": 8},
        "include_samples": True,
    }
    body = {"model": MODEL, "max_tokens": 16, "temperature": 0.7, "seed": 2, "messages": messages, "kinetics": options}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300)
    assert response.status_code == 200, response.text
    bill = response.json()["kinetics"]
    assert all("The final answer is" in sample["text"] for sample in bill["samples"])
    assert 0 < bill["forced"]["completion_tokens"] <= 16
    assert 0 < bill["forced"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]
