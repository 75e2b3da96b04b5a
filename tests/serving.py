"""An app that runs in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI


@asynccontextmanager
async def serving(app: FastAPI, socket: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, which is ready. socket: over a real one, for clients that leave."""
    async with AsyncExitStack() as stack:
        if socket:
            client = httpx.AsyncClient(base_url=await stack.enter_async_context(_listening(app)), timeout=60)
        else:
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            client = httpx.AsyncClient(transport=transport, base_url="http://kinetics", timeout=60)
        await stack.enter_async_context(client)
        while (await client.get("/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        yield client


@asynccontextmanager
async def _listening(app: FastAPI) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def reaches(client: httpx.AsyncClient, name: str, value: float) -> None:
    """Waits until a metric has this value: over a socket, an answer is there before all is done that follows it."""
    async with asyncio.timeout(60):
        while await metric(client, name) != value:
            await asyncio.sleep(0.01)


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name)
