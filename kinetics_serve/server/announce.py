"""Says when the server answers."""

import asyncio
import socket
import sys

import aiohttp

POLL_S = 0.5


async def announce(listener: socket.socket, text: str) -> None:
    """Prints the text to standard error once `/ready` answers on the listener's port: an engine is up, of whichever
    worker.
    """
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/ready"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
        while not await _ready(client, url):  # noqa: ASYNC110  what is waited for is another process
            await asyncio.sleep(POLL_S)
    print(text, file=sys.stderr, flush=True)


async def _ready(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
