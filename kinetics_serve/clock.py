"""The clock of waits, rests and deadlines: the event loop's, so that a loop with its own time moves all of them."""

import asyncio
import time


def now() -> float:
    """Seconds, monotonic. Outside an event loop the process's own, which every real loop goes by too."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
