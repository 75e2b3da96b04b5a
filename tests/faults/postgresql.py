"""PostgreSQL is restarted, or has no connection left."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, bearer


async def restarted(scene: Scene) -> Tally:
    return await _restarted(scene, "PostgreSQL restarted (fast)", at_once=False)


async def restarted_at_once(scene: Scene) -> Tally:
    """As after a crash."""
    return await _restarted(scene, "PostgreSQL restarted (immediate)", at_once=True)


async def _restarted(scene: Scene, what: str, at_once: bool) -> Tally:
    name, key = await scene.tenant("restarted")
    tally = Tally(what, scene.kind)
    assert scene.postgres is not None
    postgres = scene.postgres

    async def restart() -> None:
        await scene.until_running(name, 10)
        await asyncio.to_thread(postgres.stop, at_once)
        postgres.start()

    await scene.load(tally, key, 20, restart)
    return await _afterwards(scene, tally, name, key)


async def connections_used_up(scene: Scene) -> Tally:
    """Others have them all; the front-ends' own have been ended."""
    name, key = await scene.tenant("crowded")
    tally = Tally("PostgreSQL's connections used up for 6 s", scene.kind)
    told: list[int] = []

    async def crowd() -> None:
        await scene.until_running(name, 10)
        taken = await _all_connections(scene.url)
        theirs = "FROM pg_stat_activity WHERE application_name <> 'crowd' AND backend_type = 'client backend'"
        while await taken[0].fetchval(f"SELECT count(*) {theirs}"):  # they too take what comes free
            await taken[0].execute(f"SELECT pg_terminate_backend(pid) {theirs}")
            taken += await _all_connections(scene.url)
        async with httpx.AsyncClient(timeout=60) as client:
            path = f"{scene.front_ends[0].url}/v1/chat/completions"
            told.append((await client.post(path, json=QUESTION, headers=bearer(key))).status_code)
        await asyncio.sleep(6)
        for connection in taken:
            connection.terminate()

    await scene.load(tally, key, 20, crowd)
    tally.expect(told == [503], f"a new request got {told}")
    return await _afterwards(scene, tally, name, key)


async def _all_connections(url: str) -> list["asyncpg.Connection"]:
    """As many as there are."""
    where = urlsplit(url)
    found: list[asyncpg.Connection] = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            found.append(
                await asyncpg.connect(
                    host=where.hostname,
                    port=where.port,
                    user=where.username,
                    database=where.path.strip("/"),
                    server_settings={"application_name": "crowd"},
                )
            )
    return found


async def _afterwards(scene: Scene, tally: Tally, name: str, key: str) -> Tally:
    """Each front-end answers again within seconds."""
    for server in scene.front_ends:
        for _ in range(100):
            probe = Tally("", scene.kind)
            await scene.load(probe, key, 1, servers=[server])
            tally.add(probe)
            if probe.answered:
                break
            await asyncio.sleep(0.1)
        else:
            tally.expect(False, f"no answer afterwards: {probe.refused}")
    return await scene.settled(tally, name)
