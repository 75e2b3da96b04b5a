"""Reading a stream that may not fall silent for too long."""

import asyncio
from math import inf

import aiohttp


class PatientReader:
    """Reads a body piece by piece, waiting for each no longer than it is told.

    One timer serves all the waits: setting one for each would cost as much as parsing what comes.
    """

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, limit_s: float) -> bytes:
        """What has come by now, or what comes next; nothing at the end. Raises TimeoutError after limit_s seconds."""
        self._due = self._loop.time() + limit_s
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer()
        try:
            return await self._content.readany()
        finally:
            self._due = inf

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._due, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._due <= self._loop.time():
            self._content.set_exception(TimeoutError())
        elif self._due < inf:
            self._set_timer()
