"""Clients that leave, that say nothing, that are slow, and very many of them."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from kinetics_serve.server.limited_http import HEADERS_WITHIN_S
from tests.faults.scene import KINDS, Scene
from tests.faults.tally import Tally
from tests.ledger.server import QUESTION, FrontEnd, bearer

IDLE, SLOW = 1000, 100
MANY = 800


async def leave(scene: Scene) -> Tally:
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


async def idle_and_slow(scene: Scene) -> Tally:
    """Connections that say nothing, and such that say a byte a second: the others are served, and those get 408."""
    name, key = await scene.tenant("idle")
    tally = Tally(f"{IDLE} idle and {SLOW} slow connections", scene.kind)
    server = scene.front_ends[0]
    async with _connected(server, IDLE) as idle, _connected(server, SLOW) as slow:
        dripping = [asyncio.create_task(_drip(writer)) for _, writer in slow]
        await scene.load(tally, key, 16, servers=[server])
        tally.expect(tally.answered == 16, "not all were answered meanwhile")
        reading = [asyncio.create_task(reader.read()) for reader, _ in idle + slow]
        done, late = await asyncio.wait(reading, timeout=3 * HEADERS_WITHIN_S)
        for task in [*dripping, *late]:
            task.cancel()
        await asyncio.gather(*dripping, *late, return_exceptions=True)
        told = sum(b" 408 " in task.result().partition(b"\r\n")[0] for task in done if task.exception() is None)
        tally.expect(told == IDLE + SLOW, f"{told} were told that they are too slow")
    return await scene.settled(tally, name)


async def many_requests(scene: Scene) -> Tally:
    """Neither memory nor descriptors are left behind."""
    name, key = await scene.tenant("many")
    tally = Tally(f"{MANY} mixed requests", scene.kind)
    server = scene.front_ends[1]
    scene.upstream.token_s, scene.upstream.tokens = 0.0, 8
    for _ in range(5):
        await scene.load(tally, key, 40, servers=[server])
    megabytes, descriptors = _megabytes(server), _descriptors(server)
    while tally.requests < MANY:
        await scene.load(tally, key, 40, servers=[server])
    scene.upstream.well()
    tally.expect(tally.answered == tally.requests, "not all were answered")
    await scene.settled(tally, name)
    tally.expect(_megabytes(server) < megabytes + 30, f"{megabytes:.0f} MB became {_megabytes(server):.0f}")
    tally.expect(_descriptors(server) < descriptors + 10, f"{descriptors} became {_descriptors(server)} descriptors")
    return tally


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _connected(server: FrontEnd, count: int) -> AsyncIterator[list[Connection]]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(count)]
    try:
        yield connections
    finally:
        for _, writer in connections:
            writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    for byte in b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-slow: " + b"x" * 600:
        writer.write(bytes([byte]))
        await asyncio.sleep(1)


def _megabytes(server: FrontEnd) -> float:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def _descriptors(server: FrontEnd) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
