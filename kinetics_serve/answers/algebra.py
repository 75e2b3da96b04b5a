"""Computer algebra on strangers' input, in processes that can be killed.

A quick lane gives every answer a short time; what needs more goes on in a slow lane, where it holds nobody up. Workers
are forked from a server that has SymPy loaded and the parser warm, so that a killed one is replaced in milliseconds.
"""

import asyncio
import logging
import multiprocessing
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from pebble import ProcessExpired, ProcessPool

from kinetics_serve.answers.equivalence import EquivalenceKind, quick_key, slow_key

logger = logging.getLogger(__name__)

TIME_LIMIT_S = 1.75
"""Of one answer, both lanes together; with what ending it takes, no answer holds its request for two seconds."""

QUICK_LIMIT_S = 0.25
KILLED_AFTER_S = 0.25
"""Beyond its time, when a worker is busy where it cannot hear that its time is over."""

QUICK_WORKERS = 2
BATCH = 16
CACHED_KEYS = 65_536


class MathPool:
    """Keys of answers. Its processes start at first use, or with `start`."""

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        self.time_limit_s = time_limit_s
        self._lanes: tuple[Any, Any] | None = None
        self._closed = False
        self._starting: asyncio.Task[None] | None = None
        self._cache: OrderedDict[tuple[str, EquivalenceKind], str] = OrderedDict()
        self._wanted: dict[str, asyncio.Future[str]] = {}
        self._queue: deque[str] = deque()
        self._batches: set[asyncio.Task[None]] = set()

    async def key(self, answer: str, kind: EquivalenceKind) -> str:
        """The key of an answer, found once: see `equivalence`. That of `slow_key` where the time limit ended it."""
        cached = self._cache.get((answer, kind))
        if cached is not None:
            self._cache.move_to_end((answer, kind))
            return cached
        key = quick_key(answer, kind)
        if key is None:
            key = await self._worked_out(answer)
        self._cache[answer, kind] = key
        if len(self._cache) > CACHED_KEYS:
            self._cache.popitem(last=False)
        return key

    def warm(self) -> "asyncio.Task[None]":
        """Starts the processes, unless they have been. Done when they are warm."""
        if self._starting is None:
            self._starting = asyncio.create_task(asyncio.to_thread(self._start))
        return self._starting

    async def start(self) -> None:
        """Starts the processes, and waits until they are warm."""
        await asyncio.shield(self.warm())

    def close(self) -> None:
        self._closed = True
        for lane in self._lanes or ():
            lane.stop()
            lane.join()
        self._lanes = None

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["kinetics_serve.answers.worker"])
        lanes = tuple(ProcessPool(max_workers=workers, context=context) for workers in (QUICK_WORKERS, 1))
        for lane in lanes:
            lane.schedule(_keys, args=[["1"], self.time_limit_s]).result()
        self._lanes = lanes[0], lanes[1]
        if self._closed:  # meanwhile
            self.close()

    async def _worked_out(self, answer: str) -> str:
        wanted = self._wanted.get(answer)
        if wanted is None:
            wanted = self._wanted[answer] = asyncio.get_running_loop().create_future()
            self._queue.append(answer)
            if len(self._batches) < QUICK_WORKERS:
                batch = asyncio.create_task(self._work())
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
        return await asyncio.shield(wanted)

    async def _work(self) -> None:
        """Takes batches off the queue until that is empty. One of these runs for each worker of the quick lane."""
        await self.start()
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            keys = await self._run(0, batch, QUICK_LIMIT_S)
            for answer, key in zip(batch, keys, strict=False):
                self._found(answer, key)
            if len(keys) < len(batch):  # the next one took too long, and held up the others
                slow = asyncio.create_task(self._slowly(batch[len(keys)]))
                self._batches.add(slow)
                slow.add_done_callback(self._batches.discard)
                self._queue.extendleft(reversed(batch[len(keys) + 1 :]))

    async def _slowly(self, answer: str) -> None:
        keys = await self._run(1, [answer], self.time_limit_s - QUICK_LIMIT_S)
        if not keys:
            logger.warning("reading an answer took over %s s: it equals only what is written alike", self.time_limit_s)
        self._found(answer, keys[0] if keys else slow_key(answer))

    async def _run(self, lane: int, answers: Sequence[str], limit_s: float) -> list[str]:
        assert self._lanes is not None
        timeout = limit_s * len(answers) + KILLED_AFTER_S
        future = self._lanes[lane].schedule(_keys, args=[answers, limit_s], timeout=timeout)
        try:
            keys: list[str] = await asyncio.wrap_future(future)
            return keys
        except (FutureTimeoutError, ProcessExpired):
            return []

    def _found(self, answer: str, key: str) -> None:
        wanted = self._wanted.pop(answer)
        if not wanted.done():
            wanted.set_result(key)


def _keys(answers: Sequence[str], limit_s: float) -> list[str]:
    logging.disable()  # the parser logs what it could not parse: a client's text
    from kinetics_serve.answers.worker import keys  # SymPy: in the worker alone

    return keys(answers, limit_s)
