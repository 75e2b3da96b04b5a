"""Upstreams that answer in other bytes than vLLM does, or tell nonsense."""

from tests.faults.scene import Scene
from tests.faults.tally import Tally


async def other_bytes(scene: Scene) -> Tally:
    """CRLF and spaces: metered as if there were none."""
    name, key = await scene.tenant("bytes")
    tally = Tally("CRLF and spaced JSON", scene.kind)
    scene.upstream.end, scene.upstream.spaced = b"\r\n", True
    await scene.load(tally, key, 16)
    scene.upstream.well()
    tally.expect(tally.answered == 16, "not all were answered")
    return await scene.settled(tally, name)


async def nonsense_usage(scene: Scene) -> Tally:
    """No 500, the bytes go on, and what is charged for a request without a budget is a bound."""
    name, key = await scene.tenant("usage")
    tally = Tally("usage null, negative, text, missing", scene.kind)
    for usage in (None, {"completion_tokens": -3, "prompt_tokens": 20}, {"completion_tokens": "40"}, "much", {}):
        scene.upstream.usage = usage
        await scene.load(tally, key, 4)  # what no usage is told for may cost what was reserved
    scene.upstream.well()
    return await scene.settled(tally, name)


async def past_max_tokens(scene: Scene) -> Tally:
    """A stream without end is cut there, and its request closed: a sample is an answer then, a plain stream isn't."""
    name, key = await scene.tenant("past")
    tally = Tally("upstream runs past max_tokens", scene.kind)
    scene.upstream.endless, scene.upstream.token_s = True, 0.02
    await scene.load(tally, key, 16, max_tokens=20)
    scene.upstream.well()
    tally.expect(tally.answered == 12, f"{tally.answered} of 12 were answered")
    tally.expect(all("max_tokens" in each for each in tally.refused), f"the others were told {tally.refused}")
    return await scene.settled(tally, name)


async def redirects(scene: Scene) -> Tally:
    name, key = await scene.tenant("302")
    tally = Tally("302", scene.kind)
    scene.upstream.status = 302
    await scene.load(tally, key, 8)
    scene.upstream.well()
    tally.expect(tally.answered == 0, "an answer without an answer")
    return await scene.settled(tally, name)
