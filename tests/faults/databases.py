"""The ledger's database goes away, stands still, is locked, full or deleted."""

import asyncio
import sqlite3
from pathlib import Path

import httpx

from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, bearer


def _file(scene: Scene) -> Path:
    return scene.folder / "disk" / "ledger.db"


async def away(scene: Scene) -> Tally:
    """PostgreSQL is stopped under running requests; SQLite's file is deleted, and put back."""
    name, key = await scene.tenant("away")
    what = "PostgreSQL stopped for 12 s" if scene.postgres else "file taken away for 12 s"
    tally = Tally(what, scene.kind)
    refused: list[int] = []

    async def outage() -> None:
        await scene.until_running(name, 10)
        kept = _file(scene).with_suffix(".kept")
        if scene.postgres is not None:
            await asyncio.to_thread(scene.postgres.stop)
        else:
            _file(scene).rename(kept)
        await asyncio.sleep(4)
        async with httpx.AsyncClient(timeout=60) as client:
            path = f"{scene.front_ends[0].url}/v1/chat/completions"
            refused.append((await client.post(path, json=QUESTION, headers=bearer(key))).status_code)
        await asyncio.sleep(8)
        if scene.postgres is not None:
            scene.postgres.start()
        else:
            kept.rename(_file(scene))

    await scene.load(tally, key, 20, outage)
    tally.expect(refused == [503], f"a new request got {refused}")
    tally.expect(tally.answered > 0, "nothing was answered")
    return await scene.settled(tally, name)


async def stands_still(scene: Scene) -> Tally:
    """PostgreSQL is frozen for 25 s, SQLite locked by another: answers don't wait for it, and are booked afterwards."""
    name, key = await scene.tenant("frozen")
    tally = Tally("frozen for 25 s" if scene.postgres else "locked for 25 s", scene.kind)
    thawed = asyncio.Event()
    scene.upstream.token_s = 0.3  # so that all run when it happens: what has not begun yet has to wait

    async def freeze() -> None:
        await scene.until_running(name, 16)
        holder = None
        if scene.postgres is not None:
            scene.postgres.freeze(True)
        else:
            holder = sqlite3.connect(_file(scene), isolation_level=None, timeout=30)
            holder.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(25)
        if scene.postgres is not None:
            scene.postgres.freeze(False)
        elif holder is not None:
            holder.close()
        thawed.set()

    freezing = asyncio.create_task(freeze())
    await scene.load(tally, key, 16)
    tally.expect(not thawed.is_set(), f"answers waited for the database: {tally.slowest:.1f} s")
    scene.upstream.well()
    await freezing
    tally.expect(tally.answered == 16, "not all were answered")
    return await scene.settled(tally, name)


async def disk_full(scene: Scene) -> Tally:
    """The disk of the outbox and, with SQLite, of the ledger."""
    name, key = await scene.tenant("full")
    tally = Tally("disk full for 8 s", scene.kind)
    filler = scene.folder / "disk" / "filler"

    async def fill() -> None:
        await scene.until_running(name, 10)
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(65536))
            except OSError:
                pass
        await asyncio.sleep(8)
        filler.unlink()

    if not (scene.folder / "disk").is_mount():
        tally.expect(False, "not tried: no small disk can be mounted here")
        return tally
    await scene.load(tally, key, 20, fill)
    tally.expect(tally.answered > 0, "nothing was answered")
    return await scene.settled(tally, name)
