"""Computer algebra on strangers' input, in a process that can be killed."""

import asyncio
import logging
import multiprocessing
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pebble import ProcessExpired, ProcessPool

from kinetics_serve.answers.equivalence import mathematically_equal

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 2.0


def _load() -> None:
    """Imports SymPy before the first comparison, so that its time limit is for the comparison alone."""
    import math_verify  # noqa: F401

    logging.disable()  # math-verify logs what it could not parse: a client's text


class MathPool:
    """Compares answers by math-verify in one worker process, started at first use and replaced when killed."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.time_limit_s = time_limit_s
        self._pool: Any = None

    async def equal(self, a: str, b: str) -> bool | None:
        """Whether a and b denote the same value; None where the time limit ended the comparison."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # forking a process with threads is not safe
            self._pool = ProcessPool(max_workers=1, initializer=_load, context=context)
        future = self._pool.schedule(mathematically_equal, args=[a, b], timeout=self.time_limit_s)
        try:
            return await asyncio.wrap_future(future)
        except (FutureTimeoutError, ProcessExpired):
            logger.warning("comparing two answers took over %s s: taken as different", self.time_limit_s)
            return None
        except Exception as error:  # whatever SymPy makes of a stranger's text
            logger.debug("two answers could not be compared: %s", type(error).__name__)
            return False

    def close(self) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()
            self._pool = None
