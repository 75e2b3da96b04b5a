"""What the parts of a front-end cost, measured: CPU time, so that it depends little on what else the machine does."""

import asyncio
import cProfile
import json
import pstats
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks import gateway
from benchmarks.fleet.engine import Engine
from benchmarks.fleet.front_end import EngineClient, Recordings, config_of
from benchmarks.fleet.scenario import request
from benchmarks.fleet.simulation import MODEL, PILOT, Fleet, run
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import ModelCard, Upstream
from kinetics_serve.ledger import tenants
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.delivery import Delivery
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import OutboxFile
from kinetics_serve.observability.metrics import Metrics
from kinetics_serve.requests.admission import Admission, Capacity, Load

FLEETS = (10, 100, 1_000, 10_000)
TENANTS = (1, 100, 10_000)
TOKENS = (32, 160)
AT_ONCE = 64
SHARES = {
    "runner": ("kinetics_serve/runner", "kinetics_serve/strategies", "kinetics_serve/cost"),
    "routing": ("kinetics_serve/engine",),
    "admission and preparing": ("kinetics_serve/requests", "kinetics_serve/budgeted", "kinetics_serve/planner"),
    "samples and answers": ("kinetics_serve/sources", "kinetics_serve/answers", "kinetics_serve/scorers"),
    "charge and delivery": ("kinetics_serve/ledger",),
    "metrics": ("kinetics_serve/observability", "prometheus_client"),
    "the simulated outside": ("benchmarks/fleet",),
}
"""Where a profile's functions belong, by their files; the rest is Python's own: asyncio above all."""


def routing(fleet: Fleet, picks: int = 2000) -> dict[int, float]:
    """CPU seconds to choose a server for a prompt, by the number of engines."""

    async def measured(count: int, folder: Path) -> float:
        recordings = Recordings(fleet.traces, 1, Random(0))
        speed, card = fleet.speed(1), ModelCard(recordings.model, str(folder), None, {})
        engines = [Engine(f"http://engine-{number}:8000", speed, 1) for number in range(count)]
        pool = Pool([EngineClient(engine, card, recordings) for engine in engines], fleet.hardware)
        for upstream in pool.upstreams:
            await pool.check(upstream)
        bodies = [request(recordings, Random(number)) for number in range(picks)]
        began = time.thread_time()
        for body in bodies:
            pool.pick(recordings.model, body)
        return (time.thread_time() - began) / picks

    with TemporaryDirectory() as folder:
        config_of(fleet.traces, MODEL, Path(folder))
        return {count: asyncio.run(measured(count, Path(folder))) for count in FLEETS}


def admission(requests: int = 5000) -> dict[int, float]:
    """CPU seconds of a request's turn, by the number of tenants, each with a request that waits."""

    async def measured(count: int) -> float:
        queue = Admission(Capacity(samples=1, waiting=2 * count + requests))

        async def ask(tenant: int) -> None:
            async with queue.slot(f"tenant-{tenant}", Load(1)):
                await asyncio.sleep(0)

        waiting = [asyncio.create_task(ask(number)) for number in range(count)]
        await asyncio.sleep(0)
        began = time.thread_time()
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                group.create_task(ask(number % count))
        spent = time.thread_time() - began
        await asyncio.gather(*waiting)
        return spent / (requests + count)

    return {count: asyncio.run(measured(count)) for count in TENANTS}


def whole_request(fleet: Fleet) -> dict[str, object]:
    """CPU seconds of a simulated request, and the shares of its parts as a profiler sees them."""
    scenario = replace(PILOT, hours=0.1)
    began = time.process_time()
    plain = run(fleet, scenario, requests_per_s=2.0)
    spent = time.process_time() - began
    profile = cProfile.Profile()
    profile.runcall(run, fleet, scenario, requests_per_s=2.0)
    seconds: dict[str, float] = defaultdict(float)
    # `stats` is what pstats itself works on; its stubs leave it out.
    for (file, _, _), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        seconds[next((name for name, places in SHARES.items() if any(each in file for each in places)), "Python")] += (
            own
        )
    whole = sum(seconds.values())
    requests = len(plain.tally.answered)
    return {
        "requests": requests,
        "samples": sum(each.samples for each in plain.tally.answered),
        "cpu_s": spent / requests,
        "shares": {name: each / whole for name, each in sorted(seconds.items(), key=lambda item: -item[1])},
    }


def checks(count: int = 2000) -> float:
    """CPU seconds of a health check over HTTP, on a connection of its own each, as seldom checks need."""

    async def measured(port: int) -> float:
        turns = asyncio.Semaphore(AT_ONCE)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(new_client()) for _ in range(count)]
            upstreams = [Upstream(f"http://127.0.0.1:{port}", client) for client in clients]

            async def check(upstream: Upstream) -> None:
                async with turns:
                    await upstream.check_health()

            began = time.process_time()
            await asyncio.gather(*map(check, upstreams))
            return (time.process_time() - began) / count

    with TemporaryDirectory() as folder, gateway.upstream(folder, 1, 0.0) as port:
        return asyncio.run(measured(port))


def ledger(url: str, requests: int = 1000, accounts: int = 50) -> dict[str, float]:
    """Requests a second that are reserved and settled, AT_ONCE at a time, of so many tenants; and CPU seconds of each.

    The database is left with the tenants.
    """

    async def measured(folder: Path) -> dict[str, float]:
        database = Database(url)
        await database.migrate()
        books = Ledger(database)
        async with database.write() as connection:
            names = [f"tenant-{number}" for number in range(accounts)]
            limits = {"window_eflops": 10**18}
            owners = [await tenants.save(connection, name, limits, books.now) for name in names]
        delivery = Delivery(books, Outbox(OutboxFile(folder / "outbox.db")), Metrics())
        working = asyncio.create_task(delivery.run())
        left = iter(range(requests))

        async def client() -> None:
            for number in left:
                async with Charge(delivery, owners[number % accounts], "model", "majority_vote", 1000, lambda: 500):
                    pass

        began, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await delivery.close()
        await books.close()
        return {"requests_per_s": requests / seconds, "cpu_s": cpu / requests}

    with TemporaryDirectory() as folder:
        return asyncio.run(measured(Path(folder)))


def front_end(requests: int = 160) -> dict[int, float]:
    """CPU seconds of a front-end's process for a request of 8 samples over HTTP, by the tokens of a sample."""
    found = {}
    body = gateway.QUESTION | {
        "temperature": 0.7,
        "kinetics": {
            "budget": {"samples": gateway.SAMPLES},
            "max_samples": gateway.SAMPLES,
            "answer": {"extractor": "number"},
            "strategy": "best_of_n",
        },
    }
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(gateway.CONFIG))
        for tokens in TOKENS:
            with (
                gateway.upstream(folder, tokens, gateway.TOKEN_MS) as port,
                gateway.front_end(port) as (front, pid),
            ):
                seen = gateway.budgeted(front, pid, body | {"max_tokens": tokens}, requests)
                found[tokens * gateway.SAMPLES] = seen["cpu_ms_per_request"] / 1000
    return found
