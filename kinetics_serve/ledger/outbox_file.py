"""The outbox on disk: a SQLite file with the bills that the database has not booked yet."""

import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinetics_serve.ledger.errors import LedgerMisuse, OutboxUnavailable
from kinetics_serve.ledger.file_identity import FileIdentity
from kinetics_serve.ledger.identity import Identity
from kinetics_serve.ledger.settlement import Settlement

logger = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 10.0

ROOM_BYTES = 1 << 20
"""Free inside the file at the least when a request begins: some 3,000 bills."""

GROWTH_BYTES = 4 << 20
"""What the file grows by. It never shrinks, so what is written into it needs no space of the disk's any more."""

LOG_BYTES = 8 << 20
"""Of the write-ahead log, set aside too. SQLite writes it from the start again after some 4 MiB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settlements (
    id TEXT PRIMARY KEY, tenant_id INTEGER NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, strategy TEXT NOT NULL,
    reserved TEXT NOT NULL, spent TEXT NOT NULL, at INTEGER NOT NULL, put_at INTEGER NOT NULL, problem TEXT
) WITHOUT ROWID
"""
_COLUMNS = "id, tenant_id, tenant, model, strategy, reserved, spent, at"


@dataclass(frozen=True, slots=True)
class Change:
    """What one transaction does. rejected: ids of bills that can't be booked, with why."""

    put: Sequence[Settlement] = ()
    booked: Sequence[str] = ()
    rejected: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """What is in an outbox. oldest_s: seconds that its oldest bill has waited; 0 where none does."""

    entries: int
    rejected: int
    oldest_s: float


class OutboxFile:
    """The file at `path`, which processes can share. Every method blocks; one thread uses it at a time.

    ledger: whose bills it keeps, and no other's: a file that knows of none takes the first. None: it is not asked.

    Space is set aside ahead of need, so that bills can be written on a full disk: free pages in the file itself, and
    the write-ahead log at its full length. Methods raise OutboxUnavailable where the file can't be read or written.
    """

    def __init__(self, path: Path, ledger: Identity | None = None) -> None:
        self.path = path
        self._ledger = ledger
        self._connection: sqlite3.Connection | None = None
        self._identity = FileIdentity(path)

    def open(self) -> None:
        """Creates the file, which only its owner can read, where there is none. Raises LedgerMisuse."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._opened()
            self.check()
        except (OSError, sqlite3.Error, OutboxUnavailable) as error:
            reason = error.__cause__ or error
            raise LedgerMisuse(f"the outbox {self.path} can't be used: {reason}; state another --outbox") from None

    def check(self) -> None:
        """Raises OutboxUnavailable where a request that begins now might not be billed in the end."""
        with self._working() as connection:
            self._set_log_aside()
            free, page = (_number(connection, pragma) for pragma in ("freelist_count", "page_size"))
            if free * page < ROOM_BYTES:
                if shutil.disk_usage(self.path.parent).free < 2 * GROWTH_BYTES:
                    raise OSError(errno.ENOSPC, "its disk is full")
                _grow(connection)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("UPDATE probe SET at = ?", (time.time_ns(),))

    def write(self, changes: Sequence[Change]) -> None:
        """Makes all changes in one transaction: on disk, or not made, when this returns."""
        put_at = int(time.time())
        rows = [
            (
                *(each.id, each.tenant_id, each.tenant, each.model, each.strategy),
                *(str(each.reserved), str(each.spent), each.at, put_at),
            )
            for change in changes
            for each in change.put
        ]
        with self._working() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                f"INSERT OR IGNORE INTO settlements ({_COLUMNS}, put_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            booked = [(id,) for change in changes for id in change.booked]
            connection.executemany("DELETE FROM settlements WHERE id = ?", booked)
            rejected = [(why, id) for change in changes for id, why in change.rejected]
            connection.executemany("UPDATE settlements SET problem = ? WHERE id = ?", rejected)

    def waiting(self, limit: int) -> list[Settlement]:
        """The oldest bills that wait to be booked, without those that were rejected."""
        with self._working() as connection:
            statement = f"SELECT {_COLUMNS}, '' FROM settlements WHERE problem IS NULL ORDER BY put_at LIMIT ?"
            return [bill for bill, _ in _read(connection.execute(statement, (limit,)))]

    def rejected(self) -> list[tuple[Settlement, str]]:
        """Bills that can't be booked, and why."""
        with self._working() as connection:
            statement = f"SELECT {_COLUMNS}, problem FROM settlements WHERE problem IS NOT NULL"
            return list(_read(connection.execute(statement)))

    def pending(self) -> Pending:
        with self._working() as connection:
            statement = "SELECT count(*), count(problem), min(iif(problem IS NULL, put_at, NULL)) FROM settlements"
            entries, rejected, oldest = connection.execute(statement).fetchone()
            return Pending(entries - rejected, rejected, max(0.0, time.time() - oldest) if oldest is not None else 0.0)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _working(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._opened()
        except (OSError, sqlite3.Error) as error:
            raise OutboxUnavailable(f"the outbox {self.path} can't be used: {error}") from error

    def _opened(self) -> sqlite3.Connection:
        """The connection: a new one where somebody has deleted or replaced the file."""
        if self._connection is not None and self._identity.same:
            return self._connection
        self.close()
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._identity.take()
        connection = sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # a bill is on disk before its answer is sent
            connection.execute(_SCHEMA)
            connection.execute("CREATE TABLE IF NOT EXISTS probe AS SELECT 0 AS at")
            if self._ledger is not None:
                _check_ledger(connection, self._ledger)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _set_log_aside(self) -> None:
        if not hasattr(os, "posix_fallocate"):  # macOS: a full disk is noticed when it is full
            return
        log = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(log).st_size < LOG_BYTES:
                os.posix_fallocate(log, 0, LOG_BYTES)
        finally:
            os.close(log)


def _check_ledger(connection: sqlite3.Connection, ledger: Identity) -> None:
    """Raises OSError where the file keeps another ledger's bills: booked here, they would be lost there.

    A ledger that was made anew in the old one's place takes the file over, unless bills are left in it.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS ledger (id TEXT NOT NULL, place TEXT NOT NULL)")
    kept = connection.execute("SELECT id, place FROM ledger").fetchone()
    if kept is None or kept[0] != ledger.id:
        connection.execute("INSERT INTO ledger SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM ledger)", ledger)
        anew = "UPDATE ledger SET id = ? WHERE place = ? AND NOT EXISTS (SELECT 1 FROM settlements)"
        connection.execute(anew, ledger)
        kept = connection.execute("SELECT id, place FROM ledger").fetchone()
    if kept[0] != ledger.id:
        raise OSError(f"it keeps the bills of {Identity(*kept)}, and this is {ledger}")


def _grow(connection: sqlite3.Connection) -> None:
    """Fills pages with zeros, has them written to the file itself, where a full disk shows, and frees them again.

    SQLite keeps the pages of what is deleted, and uses them for what comes next.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS room AS SELECT zeroblob(?) AS zeros", (GROWTH_BYTES,))
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]:  # others write, or make room too
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("others keep it busy")
        time.sleep(0.05)
    connection.execute("DROP TABLE IF EXISTS room")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


def _read(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Settlement, str]]:
    """Bills and their problems. A row that somebody has damaged is left where it is, and keeps no other back."""
    for *bill, problem in rows:
        try:
            yield _settlement(bill), problem
        except ValueError as error:
            logger.error("the bill %r in the outbox can't be read, and is not booked: %s", bill[0], error)


def _settlement(row: Sequence[object]) -> Settlement:
    id, tenant_id, tenant, model, strategy, reserved, spent, at = row
    return Settlement(
        str(id),
        int(str(tenant_id)),
        str(tenant),
        str(model),
        str(strategy),
        int(str(reserved)),
        int(str(spent)),
        int(str(at)),
    )
