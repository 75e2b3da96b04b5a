"""Reading a stream that may not say nothing for too long."""

import asyncio
from math import inf

import aiohttp


class PatientReader:
    """Reads a body piece by piece, until it has waited `limit_s` seconds in all since it was last told of progress.

    What counts as progress is the caller's to say: a server that sends bytes, but no token, makes none. Time between
    two reads counts for none either. One timer serves all the waits: setting one for each would cost as much as parsing
    what comes.
    """

    def __init__(self, content: aiohttp.StreamReader, limit_s: float) -> None:
        self.limit_s = limit_s
        self._left_s = limit_s
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None

    def progressed(self, limit_s: float) -> None:
        """From here on, it waits limit_s seconds."""
        self.limit_s = self._left_s = limit_s

    async def read(self) -> bytes:
        """What has come by now, or what comes next; nothing at the end. Raises TimeoutError."""
        begun = self._loop.time()
        if self._left_s <= 0:
            raise TimeoutError
        self._due = begun + self._left_s
        if self._timer is None or self._timer.when() > self._due:
            self._set_timer()
        try:
            return await self._content.readany()
        finally:
            self._due = inf
            self._left_s -= self._loop.time() - begun

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
