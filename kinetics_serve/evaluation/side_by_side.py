"""Several at a time: what evaluation asks a server."""

import asyncio
from collections.abc import Awaitable, Callable


async def side_by_side(work: Callable[[], Awaitable[None]], concurrency: int) -> None:
    """Runs `work` that often at once, each taking from what is left to do. The first to fail ends all, and its error is
    raised; none is left running."""
    workers = [asyncio.ensure_future(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
