"""Votes for an equal price: fixed-N self-consistency, its_hub's BetaSelfConsistency, and this project's strategies.

All ask the same times-table questions of the same vLLM (the bundled SmolLM2-135M) with the same sampling and the same
rule for answers, one method after the other. What each cost is read from vLLM's own counters, so that samples that were
cancelled count for what they had generated, and priced by one formula, as if nothing were shared but cached prompts.

Self-consistency of several N makes a line of accuracy against the logarithm of eFLOPs. Every other method is held
against that line at the eFLOPs that it spent itself, question by question, and its eFLOPs against those at which the
line is as accurate. 95 % intervals resample questions.

    pip install 'kinetics-serve[bench]'
    python -m benchmarks.its_hub_comparison [--questions 24] [--line 1 2 4 8] [--sizes 8] [--out DIR]
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import log2
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.attention_speed import machine
from kinetics_serve.answers.extract import number
from kinetics_serve.commands.demos.serving import serving
from kinetics_serve.commands.terminal import chosen_hardware
from kinetics_serve.cost import Price, load_architecture
from kinetics_serve.engine.embedded import bundled_model
from kinetics_serve.engine.embedded.supervise import Supervisor
from kinetics_serve.evaluation.tasks import Task, load_task
from kinetics_serve.traces.intervals import Interval, bootstrap

MAX_TOKENS = 100
SHORT_TOKENS = 40
FORCE_TOKENS = 8
STOP_CONFIDENCE = 0.9
TEMPERATURE = 0.7
MAX_SAMPLES = 16
CONCURRENT_QUESTIONS = 4
HARDWARE = "paper-b200"

Ask = Callable[[str, int], Awaitable[str | None]]
"""From a prompt and a seed to an answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a method reached. eFLOPs, requests to vLLM and tokens are means of a question."""

    method: str
    grades: tuple[float, ...]
    """0 or 1, of each question."""
    accuracy: Interval
    eflops: float
    requests: float
    tokens: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.method:36} {_text(self.accuracy, '.2f')}  {self.eflops:.3e} eFLOPs  {self.requests:5.1f} requests  "
            f"{self.tokens:6.0f} tokens  {self.seconds:4.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """A method against the line of self-consistency."""

    method: str
    at_equal_eflops: Interval
    """Its accuracy less the line's."""
    eflops_ratio: float | None
    """Its eFLOPs by those at which the line is as accurate; None where the line never is."""

    def __str__(self) -> str:
        ratio = "never as accurate" if self.eflops_ratio is None else f"{self.eflops_ratio:.2f}"
        accuracy = _text(self.at_equal_eflops, "+.2f")
        return f"{self.method:36} accuracy at equal eFLOPs {accuracy}, eFLOPs at equal accuracy {ratio}"


def _text(interval: Interval, form: str) -> str:
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def verdict(row: Row, line: Sequence[Row]) -> Verdict:
    """line: self-consistency, N rising. Beyond its ends it is taken to be level."""
    costs = [log2(each.eflops) for each in line]
    place = float(np.interp(log2(row.eflops), costs, range(len(line))))
    below, share = int(place), place % 1
    above = min(below + 1, len(line) - 1)
    reached = [(1 - share) * a + share * b for a, b in zip(line[below].grades, line[above].grades, strict=True)]
    difference = bootstrap([[own - other] for own, other in zip(row.grades, reached, strict=True)])
    fine = np.linspace(costs[0], costs[-1], 1000)
    enough = fine[np.interp(fine, costs, [each.accuracy.mean for each in line]) >= row.accuracy.mean]
    return Verdict(row.method, difference, row.eflops / 2 ** float(enough[0]) if len(enough) else None)


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
    "requests": "vllm:time_to_first_token_seconds_count",  # of those that are cancelled later, too
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

    def eflops(self, since: dict[str, float]) -> float:
        """Of all that ran, as requests of the mean length."""
        prompt, tokens, cached = (round(since[key] / since["requests"]) for key in ("prompt", "generated", "cached"))
        return since["requests"] * self._price.eflops(self._price.sample(prompt, tokens, cached_tokens=cached))


async def measure(method: str, ask: Ask, task: Task, counters: Counters) -> Row:
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
    count = len(grades)
    row = Row(
        method,
        tuple(grade for (grade,) in grades),
        bootstrap(grades),
        counters.eflops(since) / count,
        since["requests"] / count,
        since["generated"] / count,
        time.monotonic() - started,
    )
    print(row, flush=True)
    return row


def _equal(answer: str, choice: str) -> bool:
    try:
        return float(answer) == float(choice)
    except ValueError:
        return False


async def compare(task: Task, line: Sequence[int], sizes: Sequence[int]) -> tuple[list[Row], list[Verdict]]:
    """line: the sizes of self-consistency. sizes: of everything else."""
    from its_hub import OpenAICompatibleLanguageModel

    folder = str(bundled_model.bundled_model())
    price = Price.on(load_architecture(folder), chosen_hardware(HARDWARE))
    engine = Supervisor(folder, served_name=bundled_model.NAME)
    await engine.start()
    try:
        async with httpx.AsyncClient(timeout=600) as client:
            counters = Counters(client, engine.url, price)
            options = ("--upstream", engine.url, "--architecture", folder, "--hardware", HARDWARE)
            model = OpenAICompatibleLanguageModel(
                f"{engine.url}/v1", "none", bundled_model.NAME, max_tokens=MAX_TOKENS, temperature=TEMPERATURE
            )
            with serving(*options) as url:
                plain = {f"self-consistency, N = {size}": self_consistency(client, url, size) for size in line}
                others = {name: ask for size in sizes for name, ask in methods(client, url, model, size).items()}
                baseline = [await measure(name, ask, task, counters) for name, ask in plain.items()]
                rows = [await measure(name, ask, task, counters) for name, ask in others.items()]
            await model.close()
            return [*baseline, *rows], [verdict(row, baseline) for row in rows]
    finally:
        await engine.stop()


def self_consistency(client: httpx.AsyncClient, url: str, size: int) -> Ask:
    return kinetics(client, url, budget={"samples": size}, strategy="self_consistency", max_samples=size)


def methods(client: httpx.AsyncClient, url: str, model: Any, size: int) -> dict[str, Ask]:
    vote = partial(
        kinetics, client, url, budget={"samples": size}, strategy="majority_vote", stop_confidence=STOP_CONFIDENCE
    )
    return {
        f"its_hub Beta, N = {size}": its_hub(model, size),
        f"majority_vote, {size} samples' worth": vote(),
        f"the same, cut at {SHORT_TOKENS}": vote(max_tokens=SHORT_TOKENS),
        f"the same, cut at {SHORT_TOKENS} and forced": vote(max_tokens=SHORT_TOKENS, force_tokens=FORCE_TOKENS),
        f"the same, cut at {MAX_TOKENS} and forced": vote(force_tokens=FORCE_TOKENS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=24, help="drawn from the 64, the same every time")
    parser.add_argument("--line", type=int, nargs="+", default=[1, 2, 4, 8], help="N of self-consistency, rising")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8], help="samples' worth of the other methods")
    parser.add_argument("--out", type=Path, default=Path("results/its_hub"))
    arguments = parser.parse_args()
    task = load_task("times-tables")
    task = replace(task, problems=tuple(random.Random(0).sample(task.problems, arguments.questions)))
    rows, verdicts = asyncio.run(compare(task, arguments.line, arguments.sizes))
    for each in verdicts:
        print(each)
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": machine(),
        "questions": arguments.questions,
        "rows": [asdict(row) for row in rows],
        "verdicts": [asdict(each) for each in verdicts],
    }
    (arguments.out / "its_hub_comparison.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
