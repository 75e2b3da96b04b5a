"""How long votes take to label: real answers, many requests at once, with and without hostile answers among them.

    python -m benchmarks.answers --requests 1000 --votes 32

Every request has its own question, with its own answers in several notations. Prints the time a vote takes at p50 and
p99, how long the event loop was busy at a stretch, and what hostile answers cost themselves and others.
"""

import argparse
import asyncio
import gc
import json
import random
import selectors
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.extract import extractor
from kinetics_serve.answers.groups import AnswerGroups
from kinetics_serve.answers.reader import Reader

HOSTILE = ["9^{9^{9^9}}", "(" * 250 + "1" + ")" * 250, "{" * 8000, r"(x+y+z+w)^{60}", r"\binom{10^9}{5\cdot 10^8}"]
AT_ONCE = 8


def texts(number: int, votes: int, generator: random.Random) -> list[str]:
    """The samples of one request: three answers, as models write them."""
    top, bottom = generator.randint(1, 99), generator.randint(2, 99)
    right = [f"\\boxed{{\\frac{{{top}}}{{{bottom}}}}}", f"The answer is {top}/{bottom}.", f"#### {top}/{bottom}"]
    wrong = [f"The answer is ${number}\\sqrt{{2}}$.", f"\\boxed{{{number + 1}}}", f"Answer: x = {number}"]
    return [generator.choice(right if generator.random() < 0.6 else wrong) for _ in range(votes)]


async def vote(pool: MathPool, samples: Sequence[str], taken: list[float]) -> None:
    """Labels the samples of one request, and notes how long each took."""
    reader = Reader(extractor("auto"), AnswerGroups("auto", pool))
    for sample in samples:
        await asyncio.sleep(0)  # samples end one by one
        started = time.perf_counter()
        await reader.read(sample)
        taken.append(time.perf_counter() - started)


class Watched(selectors.DefaultSelector):
    """Notes how long the event loop works between two looks at its sockets, in seconds of processor time: on a busy
    machine the clock would tell of others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.busy: list[float] = []
        self._since: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._since is not None:
            self.busy.append(time.thread_time() - self._since)
        events = super().select(timeout)
        self._since = time.thread_time()
        return events


async def measure(pool: MathPool, requests: Sequence[Sequence[str]], watched: Watched) -> dict[str, Any]:
    taken: list[float] = []
    await asyncio.sleep(0)
    watched.busy.clear()  # what led here is no vote
    waiting = iter(requests)

    async def serve() -> None:
        for samples in waiting:
            await vote(pool, samples, taken)

    started = time.perf_counter()
    await asyncio.gather(*[serve() for _ in range(AT_ONCE)])
    wall = time.perf_counter() - started
    milliseconds = 1000 * np.percentile(taken, [50, 99, 100])
    return {
        "votes": len(taken),
        "wall_s": round(wall, 2),
        "vote_p50_ms": round(float(milliseconds[0]), 3),
        "vote_p99_ms": round(float(milliseconds[1]), 3),
        "vote_max_ms": round(float(milliseconds[2]), 1),
        "loop_busy_p99_ms": round(1000 * float(np.percentile(watched.busy, 99)), 2),
        "loop_busy_max_ms": round(1000 * max(watched.busy), 2),
    }


async def run(requests: int, votes: int, watched: Watched) -> dict[str, Any]:
    extractor("auto")("The answer is 5.")  # once a process: finding it, and what expressions are made of
    pool = MathPool()
    started = time.perf_counter()
    await pool.start()
    results: dict[str, Any] = {"start_s": round(time.perf_counter() - started, 2)}
    gc.collect()
    gc.freeze()  # as the server does before it serves
    try:
        generator = random.Random(0)
        asked = [texts(number, votes, generator) for number in range(requests)]
        results["alone"] = await measure(pool, asked, watched)
        asked = [texts(number + requests, votes, generator) for number in range(requests)]
        taken: list[float] = []
        hostile = asyncio.create_task(vote(pool, [f"\\boxed{{{answer}}}" for answer in HOSTILE], taken))
        results["beside_hostile"] = await measure(pool, asked, watched)
        await hostile
        results["hostile_s"] = {answer[:20]: round(each, 2) for answer, each in zip(HOSTILE, taken, strict=True)}
    finally:
        pool.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--votes", type=int, default=32)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    watched = Watched()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watched)) as runner:
        results = runner.run(run(arguments.requests, arguments.votes, watched))
    for name, value in results.items():
        print(f"{name:16} {value}")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
