"""Front-ends that stand still, die or are stopped."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from kinetics_serve.ledger.errors import LedgerUnavailable
from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.ledger.server import LEASE_S


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
    again = Tally("", scene.kind)
    await scene.load(again, key, 8, servers=[server])
    tally.expect(again.answered == 8, "not all were answered afterwards")
    tally.requests, tally.answered = tally.requests + 8, tally.answered + again.answered
    tally.bills, tally.slack = tally.bills + again.bills, tally.slack + again.slack
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
