"""Bills on their way to the database, kept on local disk until they are there."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import TypeVar, TypeVarTuple

from sqlalchemy.engine import URL

from kinetics_serve.ledger.errors import OutboxUnavailable
from kinetics_serve.ledger.identity import place_of
from kinetics_serve.ledger.outbox_file import Change, OutboxFile, Pending
from kinetics_serve.ledger.settlement import Settlement

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CHECK_S = 1.0
"""An outbox that could be written a second ago is taken to be writable."""

MOST_AT_ONCE = 1000
"""Bills that are read from the file at a time."""


def default_path(ledger: URL) -> Path:
    """Beside a SQLite ledger; for another, in the user's folder for state, by a name that stands for the database."""
    if ledger.get_backend_name() == "sqlite":
        return Path(f"{ledger.database}-outbox")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "kinetics-serve" / f"outbox-{hashlib.sha256(place_of(ledger).encode()).hexdigest()[:12]}.db"


class Outbox:
    """An OutboxFile for many requests at once: what they write at the same time costs one transaction, one fsync.

    Methods raise OutboxUnavailable.
    """

    def __init__(self, file: OutboxFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._checker: asyncio.Task[None] | None = None
        self._checked_at = -CHECK_S

    async def check(self) -> None:
        """Returns where a request that begins now can be billed in the end, whatever becomes of the database."""
        if monotonic() - self._checked_at < CHECK_S:
            return
        if self._checker is None or self._checker.done():
            self._checker = asyncio.create_task(self._check())
        await asyncio.shield(self._checker)

    async def put(self, settlement: Settlement) -> None:
        """Returns when the bill is on disk."""
        await self._change(Change(put=[settlement]))

    async def booked(self, ids: list[str]) -> None:
        """Takes out what the database has."""
        await self._change(Change(booked=ids))

    async def rejected(self, id: str, why: str) -> None:
        """Marks a bill that the database can't book: it stays, and is not tried again."""
        await self._change(Change(rejected=[(id, why)]))

    async def waiting(self) -> list[Settlement]:
        """The oldest bills that wait to be booked, whichever process put them there."""
        return await self._run(self._file.waiting, MOST_AT_ONCE)

    async def pending(self) -> Pending:
        return await self._run(self._file.pending)

    async def close(self) -> None:
        await self._run(self._file.close)
        self._thread.shutdown()

    async def _check(self) -> None:
        await self._run(self._file.check)
        self._checked_at = monotonic()

    async def _change(self, change: Change) -> None:
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((change, written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await written

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            error = None
            try:
                await self._run(self._file.write, [change for change, _ in batch])
            except OutboxUnavailable as caught:
                error = caught
                self._checked_at = -CHECK_S  # the next request finds out before it runs
            for _, written in batch:
                if written.done():  # its request was cancelled meanwhile
                    continue
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)

    async def _run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
