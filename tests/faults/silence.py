"""Upstreams that say nothing, though they are there."""

import asyncio

from tests.faults.scene import Scene, says_ready
from tests.faults.tally import Tally

IMPATIENT = ("--first-token-timeout", "3", "--token-timeout", "3")


async def stands_still(scene: Scene) -> Tally:
    """Past the time-outs: those who wait are told, the front-end isn't ready, and is again as soon as it goes on."""
    name, key = await scene.tenant("silent")
    tally = Tally("upstream stopped past time-outs of 3 s", scene.kind)
    async with scene.another(*IMPATIENT) as server:

        async def stop() -> None:
            await scene.until_running(name, 8)
            scene.upstream.still = True
            for _ in range(200):
                if not await asyncio.to_thread(says_ready, server):
                    break
                await asyncio.sleep(0.1)
            else:
                tally.expect(False, "it said that it was ready")
            scene.upstream.still = False
            seconds = await scene.ready(server)
            tally.expect(seconds < 15, f"ready again after {seconds:.1f} s only")

        await scene.load(tally, key, 8, stop, servers=[server])
        tally.expect(any("nothing for 3 s" in each for each in tally.refused), f"nobody was told: {tally.refused}")
        before = tally.answered
        await scene.load(tally, key, 8, servers=[server])
        tally.expect(tally.answered == before + 8, "not all were answered afterwards")
        await scene.ready()
        return await scene.settled(tally, name)


async def a_byte_now_and_then(scene: Scene) -> Tally:
    """Bytes that make no token are silence."""
    name, key = await scene.tenant("drips")
    tally = Tally("upstream sends a byte now and then", scene.kind)
    async with scene.another(*IMPATIENT) as server:
        scene.upstream.drips = True
        await scene.load(tally, key, 8, servers=[server])
        scene.upstream.well()
        told = sum("nothing for 3 s" in each for each in tally.refused)
        tally.expect(
            told == 6, f"of six that had streams, {told} were told: {tally.refused}"
        )  # two are plain and whole
        tally.expect(tally.slowest < 20, f"they waited for {tally.slowest:.1f} s")
        await scene.ready()
        return await scene.settled(tally, name)


async def models_unanswered(scene: Scene) -> Tally:
    """A call of /v1/models that is accepted and never answered costs its time-out, and not the upstream."""
    name, key = await scene.tenant("models")
    tally = Tally("/v1/models unanswered once", scene.kind)
    scene.upstream.unanswered = frozenset({"/v1/models"})

    async def relent() -> None:
        await asyncio.sleep(5)
        scene.upstream.unanswered = frozenset()

    relenting = asyncio.create_task(relent())
    async with scene.another() as server:
        await relenting
        await scene.load(tally, key, 8, servers=[server])
        tally.expect(tally.answered == 8, "not all were answered")
        return await scene.settled(tally, name)
