"""Several processes on one database."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from tests.ledger.conftest import tenant

AMOUNT = 10**30  # beyond what an integer column holds
LEASE_S = 600


def front_end(url: str, count: int, lease_s: int, *more: str) -> "subprocess.Popen[str]":
    script = Path(__file__).parent / "front_end.py"
    command = [sys.executable, str(script), url, "acme", str(count), str(AMOUNT), str(lease_s), *more]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env={"PYTHONPATH": str(root)})


async def test_two_processes_with_200_requests_on_a_quota_for_50_reserve_exactly_50(url: str) -> None:
    ledger = Ledger(Database(url))
    owner = await tenant(ledger, window_eflops=50 * AMOUNT)
    processes = [front_end(url, 100, LEASE_S) for _ in range(2)]
    succeeded = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(succeeded) == 50
    standing = await ledger.standing(owner)
    assert (standing.running, standing.reserved) == (50, 50 * AMOUNT)
    await ledger.close()


async def test_a_killed_process_leaves_an_exact_ledger_after_the_lease(url: str) -> None:
    ledger = Ledger(Database(url))
    owner = await tenant(ledger, window_eflops=5 * AMOUNT, concurrency=5)
    process = front_end(url, 5, LEASE_S, "hold")
    assert process.stdout is not None
    assert process.stdout.readline() == "5\n"
    process.kill()
    process.communicate()
    assert (await ledger.standing(owner)).running == 5
    await replace(ledger, clock=lambda: time.time() + LEASE_S).expire()
    standing = await ledger.standing(owner)
    assert (standing.running, standing.reserved, standing.window_spent) == (0, 0, 5 * (AMOUNT // 10))
    assert [(row.requests, row.eflops) for row in await ledger.usage()] == [(5, 5 * (AMOUNT // 10))]
    await ledger.reserve("a" * 32, owner, "m", "auto", AMOUNT)
    await ledger.close()
