"""No fault at all: many requests at once, a quota, clients that leave."""

import asyncio
import random
from contextlib import suppress

import httpx

from kinetics_serve.ledger.errors import LedgerUnavailable
from tests.faults.scene import KINDS, Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, bearer


async def no_fault(scene: Scene) -> Tally:
    name, key = await scene.tenant("none")
    tally = Tally("none", scene.kind)
    await scene.load(tally, key, 40)
    tally.expect(tally.answered == 40, "not all were answered")
    return await scene.settled(tally, name)


async def quota(scene: Scene) -> Tally:
    """For 12 plain requests' worth, asked for by 60 at once on two front-ends."""
    limit = 12 * scene.front_ends[0].eflops(QUESTION["max_tokens"])
    name, key = await scene.tenant("quota", window_eflops=limit)
    tally = Tally("60 at once, quota for 12", scene.kind)

    async def watch() -> None:
        for _ in range(20):
            with suppress(LedgerUnavailable):
                _, standing = await scene.standing(name)
                tally.over_quota += standing.window_spent + standing.reserved > limit
            await asyncio.sleep(0.1)

    await scene.load(tally, key, 60, watch)
    tally.expect(0 < tally.answered < 60, "the quota bounds nothing")
    return await scene.settled(tally, name)


async def clients_that_leave(scene: Scene) -> Tally:
    name, key = await scene.tenant("leave")
    tally = Tally("40 clients leave", scene.kind)
    server = scene.front_ends[0]

    async def ask(number: int) -> None:
        tally.requests += 1
        body = QUESTION | KINDS[number % 4]
        tally.slack += server.eflops(QUESTION["max_tokens"]) * 3
        async with httpx.AsyncClient(timeout=60) as client:
            path = f"{server.url}/v1/chat/completions"
            work = asyncio.create_task(client.post(path, json=body, headers=bearer(key)))
            await asyncio.wait({work}, timeout=random.uniform(0.05, 2))
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    await asyncio.gather(*map(ask, range(40)))
    return await scene.settled(tally, name)
