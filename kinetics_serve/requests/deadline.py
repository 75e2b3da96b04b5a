"""The moment by which a request is answered or given up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kinetics_serve import clock
from kinetics_serve.engine.errors import EngineSilent


@dataclass(frozen=True, slots=True)
class Deadline:
    """A request arrives when this is made."""

    limit_s: float | None
    """Seconds from its arrival; None is no limit."""

    arrived: float = field(default_factory=clock.now)
    """By `clock.now`."""

    @property
    def remaining_s(self) -> float | None:
        return None if self.limit_s is None else max(0.0, self.arrived + self.limit_s - clock.now())

    def passed(self) -> EngineSilent:
        """What ends an answer that has begun."""
        return EngineSilent(f"the answer was not complete within {self.limit_s:g} s, the server's deadline")

    @asynccontextmanager
    async def awaiting_engine(self) -> AsyncIterator[None]:
        """Inside, an engine works for the request. Raises EngineSilent when the deadline has passed."""
        timer = asyncio.timeout(self.remaining_s)
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
            raise EngineSilent(
                f"there was no answer within {self.limit_s:g} s, the request's deadline or the server's"
            ) from None
