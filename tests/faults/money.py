"""No fault at all: many requests at once, and a quota."""

import asyncio
from contextlib import suppress

from kinetics_serve.ledger.errors import LedgerUnavailable
from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION


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
