"""Votes for an equal price: fixed-N self-consistency, its_hub's BetaSelfConsistency, and this project's strategies.

All ask the same times-table questions of the same vLLM (the bundled SmolLM2-135M) with the same sampling and the same
rule for answers, one method after the other. What each cost is read from vLLM's own counters, so that samples that were
cancelled count for what they had generated, and priced by one formula, as if nothing were shared but cached prompts.
Accuracy with 95 % intervals that resample questions.

    pip install 'kinetics-serve[bench]'
    python -m benchmarks.its_hub_comparison [--questions 24] [--sizes 8] [--out DIR]
"""

import argparse
import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from kinetics_serve.cost import Price, load_architecture
from kinetics_serve.demo import serving
from kinetics_serve.engine import bundled_model
from kinetics_serve.engine.supervisor import Supervisor
from kinetics_serve.evaluation.tasks import Task, load_task
from kinetics_serve.intervals import Interval, bootstrap
from kinetics_serve.strategies.answers import number
from kinetics_serve.terminal import chosen_hardware

MAX_TOKENS = 100
SHORT_TOKENS = 40
TEMPERATURE = 0.7
MAX_SAMPLES = 16
CONCURRENT_QUESTIONS = 4
HARDWARE = "b200"

Ask = Callable[[str, int], Awaitable[str | None]]
"""From a prompt and a seed to an answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a method reached. eflops, samples, tokens: means a question."""

    method: str
    accuracy: Interval
    eflops: float
    samples: float
    tokens: float
    seconds: float


def kinetics(
    client: httpx.AsyncClient, url: str, max_tokens: int = MAX_TOKENS, force_tokens: int = 0, **options: Any
) -> Ask:
    answer = {"extractor": "number", "force_tokens": force_tokens}

    async def ask(prompt: str, seed: int) -> str | None:
        body = {
            "model": bundled_model.NAME,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": TEMPERATURE,
            "seed": seed,
            "kinetics": {"answer": answer, "max_samples": MAX_SAMPLES, **options},
        }
        response = await client.post(f"{url}/v1/chat/completions", json=body, timeout=600)
        response.raise_for_status()
        found: str | None = response.json()["kinetics"]["answer"]
        return found

    return ask


def its_hub(model: Any, budget: int) -> Ask:
    from its_hub import BetaSelfConsistency

    algorithm = BetaSelfConsistency(0.95, consistency_space_projection_func=number)

    async def ask(prompt: str, seed: int) -> str | None:
        message = await algorithm.ainfer(model, prompt, budget)
        return number(message["content"] or "")

    return ask


COUNTERS = {
    "generated": "vllm:generation_tokens_total",
    "prompt": "vllm:prompt_tokens_total",
    "cached": "vllm:prefix_cache_hits_total",
}


class Counters:
    """vLLM's own counters, and what they come to in eFLOPs since they were last read."""

    def __init__(self, client: httpx.AsyncClient, url: str, price: Price) -> None:
        self._client = client
        self._url = url
        self._price = price
        self._last = dict.fromkeys(COUNTERS, 0.0)

    async def read(self) -> dict[str, float]:
        text = (await self._client.get(f"{self._url}/metrics")).text
        found = {
            key: sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.M))
            for key, name in COUNTERS.items()
        }
        since = {key: value - self._last[key] for key, value in found.items()}
        self._last = found
        return since

    def eflops(self, since: dict[str, float], prompt_tokens: int) -> tuple[float, float]:
        """Of all that ran, and how many samples that were."""
        samples = since["prompt"] / prompt_tokens
        mean_tokens, mean_cached = round(since["generated"] / samples), round(since["cached"] / samples)
        each = self._price.sample(prompt_tokens, mean_tokens, cached_tokens=min(mean_cached, prompt_tokens))
        return samples * self._price.eflops(each), samples


async def measure(method: str, ask: Ask, task: Task, counters: Counters, prompt_tokens: int) -> Row:
    await counters.read()
    started = time.monotonic()
    limit = asyncio.Semaphore(CONCURRENT_QUESTIONS)

    async def grade(index: int) -> list[float]:
        problem = task.problems[index]
        async with limit:
            answer = await ask(task.prompt(problem), 1000 * index)
        return [float(answer is not None and any(_equal(answer, choice) for choice in problem.choices))]

    grades = await asyncio.gather(*(grade(index) for index in range(len(task.problems))))
    since = await counters.read()
    eflops, samples = counters.eflops(since, prompt_tokens)
    count = len(grades)
    row = Row(
        method,
        bootstrap(grades),
        eflops / count,
        samples / count,
        since["generated"] / count,
        time.monotonic() - started,
    )
    print(
        f"{row.method:34} {row.accuracy.mean:.2f} ({row.accuracy.low:.2f}–{row.accuracy.high:.2f})  {row.eflops:.3e} "
        f"eFLOPs  {row.samples:5.1f} samples  {row.tokens:6.0f} tokens  {row.seconds:4.0f} s"
    )
    return row


def _equal(answer: str, choice: str) -> bool:
    try:
        return float(answer) == float(choice)
    except ValueError:
        return False


async def compare(task: Task, sizes: list[int]) -> list[Row]:
    from its_hub import OpenAICompatibleLanguageModel

    folder = str(bundled_model.bundled_model())
    price = Price(load_architecture(folder), chosen_hardware(HARDWARE).intensity)
    engine = Supervisor(folder, served_name=bundled_model.NAME)
    await engine.start()
    try:
        async with httpx.AsyncClient(timeout=600) as client:
            counters = Counters(client, engine.url, price)
            prompt = {
                "model": bundled_model.NAME,
                "messages": [{"role": "user", "content": task.prompt(task.problems[0])}],
            }
            tokens = (await client.post(f"{engine.url}/tokenize", json=prompt)).json()["count"]
            options = ("--upstream", engine.url, "--architecture", folder, "--hardware", HARDWARE)
            model = OpenAICompatibleLanguageModel(
                f"{engine.url}/v1", "none", bundled_model.NAME, max_tokens=MAX_TOKENS, temperature=TEMPERATURE
            )
            rows = []
            with serving(*options) as url:
                for size in sizes:
                    budget = {"samples": size}
                    methods = {
                        f"self-consistency, N = {size}": kinetics(
                            client, url, budget=budget, strategy="self_consistency", max_samples=size
                        ),
                        f"its_hub Beta, N = {size}": its_hub(model, size),
                        f"majority_vote, {size} samples' worth": kinetics(
                            client, url, budget=budget, strategy="majority_vote", stop_confidence=0.9
                        ),
                        f"the same, cut at {SHORT_TOKENS} and forced": kinetics(
                            client,
                            url,
                            max_tokens=SHORT_TOKENS,
                            force_tokens=8,
                            budget=budget,
                            strategy="majority_vote",
                            stop_confidence=0.9,
                            max_samples=size,
                        ),
                    }
                    for name, ask in methods.items():
                        rows.append(await measure(name, ask, task, counters, tokens))
            await model.close()
            return rows
    finally:
        await engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8])
    parser.add_argument("--out", type=Path, default=Path("results/its_hub"))
    arguments = parser.parse_args()
    rows = asyncio.run(compare(load_task("times-tables", arguments.questions), arguments.sizes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"questions": arguments.questions, "rows": [asdict(row) for row in rows]}
    (arguments.out / "its_hub_comparison.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
