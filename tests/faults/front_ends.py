"""Front-ends that stand still, die or are stopped."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.runner.run import STREAM_INTERVAL
from kinetics_serve.server.serve import DRAIN_TIMEOUT_S
from tests.e2e.conftest import is_free
from tests.faults.scene import LEASE_S, WORKERS, Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, FrontEnd


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _workers(parent: int) -> list[int]:
    """Those that serve, not what they start themselves."""
    found = []
    for child in _children(parent):
        if b"kinetics_serve" in Path(f"/proc/{child}/cmdline").read_bytes():
            found.append(child)
    return found


async def stands_still(scene: Scene) -> Tally:
    """For longer than its lease: what had been booked for its requests is replaced by their bills."""
    name, key = await scene.tenant("still")
    tally = Tally("front-end stopped past its lease", scene.kind)
    server = scene.front_ends[1]

    async def stop() -> None:
        await scene.until_running(name, 10)
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_S + 2)
        expiring = asyncio.create_task(scene.standing(name))  # which expires what is overdue
        await asyncio.sleep(2)
        server.process.send_signal(signal.SIGCONT)
        with suppress(LedgerUnavailable):  # it may have stood still with the tenant's lock in its hand
            await expiring

    await scene.load(tally, key, 16, stop, servers=[server])
    tally.expect(tally.answered == 16, "not all were answered")
    return await scene.settled(tally, name)


async def a_worker_is_killed(scene: Scene) -> Tally:
    name, key = await scene.tenant("worker")
    tally = Tally("kill -9 of one of three workers", scene.kind)
    server = scene.front_ends[0]

    async def kill() -> None:
        await scene.until_running(name, 10)
        os.kill(_workers(server.process.pid)[0], signal.SIGKILL)

    await scene.load(tally, key, 30, kill, servers=[server])
    before = tally.answered
    await scene.load(tally, key, 8, servers=[server])
    tally.expect(tally.answered == before + 8, "not all were answered afterwards")
    return await scene.settled(tally, name)


async def stands_still_under_a_quota(scene: Scene) -> Tally:
    """What it had running is let go of at its last note and booked later: by so much, once, the quota is exceeded, and
    the metrics say so."""
    server, other = scene.front_ends[1], scene.front_ends[0]
    each = server.eflops(QUESTION["max_tokens"])
    name, key = await scene.tenant("limited", window_eflops=12 * each)
    tally = Tally("the same with a quota for 12", scene.kind)
    late = _late_eflops(server)
    scene.upstream.tokens, scene.upstream.token_s = 100, 0.05

    async def stop() -> None:
        await scene.until_running(name, 6)
        server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_S + 2)
        await scene.load(tally, key, 12, servers=[other], kinetics=None)
        server.process.send_signal(signal.SIGCONT)

    await scene.load(tally, key, 6, stop, servers=[server], kinetics=None)
    scene.upstream.well()
    await scene.settled(tally, name)
    _, standing = await scene.standing(name)
    beyond = standing.window_spent - 12 * each
    tally.expect(beyond <= 6 * each, f"{beyond / each:.1f} requests' worth beyond the quota, and 6 stood still")
    tally.expect(beyond <= _late_eflops(server) - late, "the metrics don't say by how much it was exceeded")
    return tally


def _late_eflops(server: FrontEnd) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("kinetics_late_settlement_eflops_total"))


async def the_parent_is_killed(scene: Scene) -> Tally:
    """Its workers finish what runs, within the drain that was asked for, and the port is free at once."""
    name, key = await scene.tenant("parent")
    tally = Tally("kill -9 of the workers' parent", scene.kind)
    server = scene.front_ends[0]
    workers = _workers(server.process.pid)
    killed_at: list[float] = []

    async def kill() -> None:
        await scene.until_running(name, 10)
        server.process.kill()
        killed_at.append(time.monotonic())
        await _until(lambda: is_free(int(server.url.rpartition(":")[2])), 10)
        tally.expect(is_free(int(server.url.rpartition(":")[2])), "its port was not free after 10 s")

    await scene.load(tally, key, 24, kill, servers=[server])
    await _until(lambda: not any(map(_lives, workers)), killed_at[0] + DRAIN_TIMEOUT_S + 5 - time.monotonic())
    tally.expect(not any(map(_lives, workers)), "workers live on after the drain")
    tally.expect(tally.answered > 0, "nothing was answered")
    scene.front_ends[0] = await asyncio.to_thread(scene.start, WORKERS[0])
    return await scene.settled(tally, name)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)


async def has_to_stop_soon(scene: Scene) -> Tally:
    """What doesn't end within the drain is told, with its best answer so far, a status or an event."""
    name, key = await scene.tenant("soon")
    tally = Tally("SIGTERM, drain of 3 s", scene.kind)
    scene.upstream.token_s = 0.5  # so that nothing ends in time
    async with scene.another("--drain-timeout", "3") as server:

        async def stop() -> None:
            await scene.until_running(name, 16)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 30)

        await scene.load(tally, key, 16, stop, servers=[server])
    scene.upstream.well()
    lost = [each for each in tally.refused if each.startswith("connection lost")]
    tally.expect(not lost, f"not all were told: {lost}")
    tally.expect(any(each.startswith("503") for each in tally.refused), "nobody was told by a status")
    return await scene.settled(tally, name)


async def a_front_end_is_killed(scene: Scene) -> Tally:
    """What was answered before stays booked, and nothing is reserved after the lease."""
    name, key = await scene.tenant("killed")
    tally = Tally("kill -9 of a front-end", scene.kind)
    server = scene.front_ends[1]

    async def kill() -> None:
        await scene.until_running(name, 10)
        server.process.kill()

    await scene.load(tally, key, 20, kill, servers=[server])
    await asyncio.sleep(LEASE_S + 1)
    scene.front_ends[1] = await asyncio.to_thread(scene.start, 1)
    return await scene.settled(tally, name)


async def a_front_end_is_killed_in_long_streams(scene: Scene) -> Tally:
    """What its requests had noted is charged, and never more than was generated."""
    name, key = await scene.tenant("killed-late")
    tally = Tally("kill -9 in long streams", scene.kind)
    server = scene.front_ends[1]
    scene.upstream.tokens, scene.upstream.token_s = 100, 0.2
    earlier = len(scene.upstream.told)
    noted = 0

    async def kill() -> None:
        nonlocal noted
        await scene.until_running(name, 12)
        await asyncio.sleep(LEASE_S + 1)
        noted = await scene.noted(name)
        server.process.kill()

    await scene.load(tally, key, 12, kill, servers=[server], stream=True)
    scene.upstream.well()
    await asyncio.sleep(LEASE_S + 1)
    scene.front_ends[1] = await asyncio.to_thread(scene.start, 1)
    await scene.settled(tally, name)
    generated = [tokens + STREAM_INTERVAL for tokens in scene.upstream.told[earlier:]]
    tally.expect(0 < noted <= tally.booked, f"{noted} was noted")
    tally.expect(tally.booked <= sum(map(server.eflops, generated)), "more than was generated")
    return tally


async def a_front_end_is_stopped(scene: Scene) -> Tally:
    name, key = await scene.tenant("stopped")
    tally = Tally("SIGTERM", scene.kind)
    server = scene.front_ends[1]

    async def stop() -> None:
        await scene.until_running(name, 10)
        server.process.send_signal(signal.SIGTERM)

    await scene.load(tally, key, 20, stop, servers=[server])
    await asyncio.to_thread(server.process.wait, 60)
    scene.front_ends[1] = await asyncio.to_thread(scene.start, 1)
    return await scene.settled(tally, name)
