"""Samples scored by a sequence classifier that a real vLLM serves, by each of its three routes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kinetics_serve.api.app import create_app
from kinetics_serve.cost import Price, load_architecture
from kinetics_serve.engine.embedded import bundled_model
from kinetics_serve.engine.embedded.launch import engine_command, engine_environment
from tests.arms import PAPER_B200
from tests.e2e.conftest import MODEL, START_TIMEOUT_S, Server, free_port

QUESTION = "What is 7 times 8?"
REWARD_MODEL = "reward"


@dataclass(frozen=True)
class Classifier:
    """vLLM with a classifier of random weights. url: without a trailing slash."""

    url: str
    folder: Path

    def ask(self, api: str, text: str) -> tuple[float, int]:
        """The score of an answer, and the tokens that it took, asked without this project."""
        conversation = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        body: dict[str, Any] = {"model": REWARD_MODEL, "messages": conversation, "add_generation_prompt": False}
        if api == "score":
            body = {"model": REWARD_MODEL, "queries": QUESTION, "documents": text}
        answer = httpx.post(f"{self.url}/{api}", json=body, timeout=60).raise_for_status().json()
        data = answer["data"][0]
        value = {"classify": data.get("probs"), "pooling": data.get("data"), "score": data.get("score")}[api]
        return value[-1] if isinstance(value, list) else value, answer["usage"]["prompt_tokens"]


def save_classifier(folder: Path) -> None:
    """Two layers of random weights that give one number, with the bundled model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(bundled_model.bundled_model())
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.1,  # so that scores of different texts differ by more than rounding does
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.bfloat16,
    )
    config.num_labels = 1
    model: Any = LlamaForSequenceClassification(config)
    model.to(torch.bfloat16).save_pretrained(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifier]:
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(folder)
    port = free_port()
    options = ("--runner", "pooling", "--max-model-len", "1024", "--kv-cache-memory-bytes", str(2**28))
    command = engine_command(sys.executable, str(folder), REWARD_MODEL, port, options)
    environment = engine_environment(str(folder), options, os.environ)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            wait_until_up(process, f"http://127.0.0.1:{port}", log)
            yield Classifier(f"http://127.0.0.1:{port}", folder)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    start = time.monotonic()
    while process.poll() is None and time.monotonic() - start < START_TIMEOUT_S:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise AssertionError(f"vLLM did not start:\n{log.read_text()[-5000:]}")


@pytest.mark.parametrize("api", ["classify", "pooling", "score"])
async def test_a_real_classifiers_favourite_wins_and_its_reading_is_on_the_bill(
    server: Server, classifier: Classifier, api: str
) -> None:
    kinetics = {
        "budget": {"samples": 30},
        "strategy": "best_of_n",
        "max_samples": 4,
        "include_samples": True,
        "scorer": {"kind": "reward_model", "model": REWARD_MODEL, "api": api},
    }
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 100, "temperature": 0.7, "seed": 2}
    app = create_app([server.engine_url, classifier.url], PAPER_B200)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics", timeout=300) as client,
    ):
        while REWARD_MODEL not in (await client.get("/v1/models")).text:
            await asyncio.sleep(0.05)
        response = await client.post("/v1/chat/completions", json=body | {"kinetics": kinetics})
    assert response.status_code == 200, response.text
    answer = response.json()
    bill = answer["kinetics"]
    finished = [sample for sample in bill["samples"] if sample["status"] == "finished"]
    assert len({sample["text"] for sample in finished}) > 1
    asked = [classifier.ask(api, sample["text"]) for sample in finished]
    assert [sample["score"] for sample in finished] == pytest.approx([score for score, _ in asked], abs=0.02)
    assert len({sample["score"] for sample in finished}) > 1
    favourite = max(finished, key=lambda sample: (sample["score"], -sample["index"]))
    assert answer["choices"][0]["message"]["content"] == favourite["text"]
    price = Price.on(load_architecture(classifier.folder), PAPER_B200)
    read = sum(price.eflops(price.sample(tokens, 0)) for _, tokens in asked)
    assert bill["scorer"]["spent_eflops"] == pytest.approx(read, rel=1e-6)
    assert bill["scorer"]["spent_eflops"] < bill["spent_eflops"] <= bill["budget_eflops"]
