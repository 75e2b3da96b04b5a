"""Upstreams that can't be reached for a time."""

import asyncio

import httpx

from tests.faults.scene import Scene
from tests.faults.tally import Tally
from tests.faults.upstream import Upstream, running_upstream
from tests.ledger.server import QUESTION, bearer


async def killed(scene: Scene) -> Tally:
    return await _gone(scene, 3)


async def away(scene: Scene) -> Tally:
    """For longer than one that failed rests before it is tried again."""
    return await _gone(scene, 15)


async def _gone(scene: Scene, seconds: float) -> Tally:
    """Clear refusals meanwhile, and answers as soon as it is back."""
    name, key = await scene.tenant("gone")
    tally = Tally(f"upstream killed, back after {seconds:g} s", scene.kind)
    back_after: list[float] = []

    async def kill() -> None:
        await scene.until_running(name, 12)
        scene.upstream.kill()
        await asyncio.sleep(seconds)
        async with httpx.AsyncClient(timeout=30) as client:
            path = f"{scene.front_ends[1].url}/v1/chat/completions"
            refusal = await client.post(path, json=QUESTION, headers=bearer(key))
        told = (refusal.status_code, refusal.json().get("error", {}).get("code"))
        tally.expect(told == (503, "engine_unavailable"), f"a new request got {told}")
        scene.upstream.listen()
        back_after.append(await scene.ready())

    await scene.load(tally, key, 16, kill)
    tally.expect(back_after[0] < 10, f"back after {back_after[0]:.1f} s only")
    before = tally.answered
    await scene.load(tally, key, 8)
    tally.expect(tally.answered == before + 8, "not all were answered afterwards")
    return await scene.settled(tally, name)


async def one_of_two_flaps(scene: Scene) -> Tally:
    """It refuses connections every other second: the other answers."""
    name, key = await scene.tenant("flaps")
    tally = Tally("one of two upstreams flaps", scene.kind)
    scene.upstream.token_s = 0.02
    with running_upstream(scene.folder) as other:
        other.token_s = 0.02
        async with scene.another("--upstream", other.url) as server:
            flapping = asyncio.create_task(_flap(other))
            for _ in range(4):
                await scene.load(tally, key, 16, servers=[server])
            flapping.cancel()
            await asyncio.gather(flapping, return_exceptions=True)
            tally.expect(tally.answered == tally.requests, "not all were answered")
            await scene.settled(tally, name)
        tally.expect(other.open == 0, "the other upstream works for nobody")
    scene.upstream.well()
    return tally


async def _flap(upstream: Upstream) -> None:
    while True:
        upstream.refuse()
        await asyncio.sleep(1)
        upstream.listen()
        await asyncio.sleep(1)
