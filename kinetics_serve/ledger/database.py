"""The database behind the ledger: how to reach it, its transactions, its schema."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from kinetics_serve.ledger import postgres_url
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable
from kinetics_serve.ledger.file_identity import FileIdentity

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10
LOCK_TIMEOUT_S = 30
CONNECTIONS = 5
"""That a process keeps open to PostgreSQL at most, whose servers take 100 of all their clients unless told otherwise. A
transaction takes milliseconds; further ones wait for a connection."""
NO_LEDGER = "there is none; the first `kinetics-serve tenants set` makes one, and so does `serve`"
TOO_MANY_CONNECTIONS = "53300"
"""PostgreSQL's code for it, of the server as a whole or of our role."""
MIGRATION_LOCK = 0x6B696E65
"""PostgreSQL advisory lock under which front-ends that start together migrate one after the other."""


class Database:
    """The database at `url`: `sqlite:///file`, a plain file name (SQLite too), or `postgresql://user@host/name`.

    Raises LedgerMisuse for another kind of URL. Connects when first used.
    """

    def __init__(self, url: str) -> None:
        self.url, arguments = _checked(url)
        self._engine = _engine(self.url, arguments)
        self._reading = self._engine.execution_options(read_only=True)
        if self._engine.dialect.name == "postgresql":
            self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ")
        self._file = FileIdentity(Path(self.url.database or "")) if self._engine.dialect.name == "sqlite" else None

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed unless an exception leaves. On SQLite it is the only writer from its start."""
        self._check_file()
        async with _translated(), AsyncExitStack() as stack:
            yield await _begun(stack, self._engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state of the database and waits for no writer."""
        self._check_file()
        async with _translated(), AsyncExitStack() as stack:
            yield await _begun(stack, self._reading)

    async def migrate(self, create: bool = True) -> None:
        """Brings the schema up to date, creating a SQLite file that only its owner can read. Safe to run at once.

        From then on, a SQLite file that is deleted or replaced is noticed. Raises LedgerMisuse, also for a schema of a
        later release and, unless it may `create` one, where there is no ledger.
        """
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            try:
                os.close(os.open(self.url.database, os.O_RDWR | (os.O_CREAT if create else 0), 0o600))
            except FileNotFoundError:
                reason = "there is no such folder" if create else NO_LEDGER
                raise LedgerMisuse(f"the ledger {Path(self.url.database)} can't be opened: {reason}") from None
            except OSError as error:
                raise LedgerMisuse(f"the ledger {Path(self.url.database)} can't be opened: {error.strerror}") from None
        async with self.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            await connection.run_sync(_upgrade, create)
        self.hold()

    def hold(self) -> None:
        """Takes a SQLite file that is there now for the ledger's: no other is read or written from here on."""
        if self._file is not None:
            self._file.take()

    def _check_file(self) -> None:
        if self._file is not None and not self._file.same:
            logger.error(
                "the ledger's file %s was deleted or replaced while the server ran: put it back, or restart the server "
                "to use what is there now",
                self.url.database,
            )
            raise LedgerUnavailable("the ledger's database is not there any more")

    async def close(self) -> None:
        await self._engine.dispose()


def _checked(url: str) -> tuple[URL, dict[str, Any]]:
    """For SQLAlchemy, and further arguments of the driver's."""
    try:
        parsed = make_url(url) if ":" in url else URL.create("sqlite", database=url)
    except ArgumentError:
        raise LedgerMisuse("the ledger's URL can't be read: expected sqlite:///FILE or postgresql://…") from None
    except ValueError:  # Python's words would repeat what stands there, which may be a password with a : or a / in it
        raise LedgerMisuse(
            "the port in the ledger's URL is no number; in a password, write : / @ # and % as %3A %2F %40 %23 and %25"
        ) from None
    backend = parsed.drivername.partition("+")[0]
    if backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite+aiosqlite"), {}
    if backend in ("postgresql", "postgres"):
        return postgres_url.translated(parsed)
    raise LedgerMisuse(f"a ledger is sqlite:///FILE or postgresql://…; given: {parsed.drivername}")


def _engine(url: URL, arguments: dict[str, Any]) -> AsyncEngine:
    if url.get_backend_name() == "postgresql":
        return create_async_engine(
            url,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": LOCK_TIMEOUT_S, **arguments},
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=LOCK_TIMEOUT_S,
            pool_pre_ping=True,
            hide_parameters=True,
        )
    engine = create_async_engine(
        url, connect_args={"timeout": LOCK_TIMEOUT_S}, pool_size=4, max_overflow=0, hide_parameters=True
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # Python's driver begins no transaction of its own: `began` does
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def began(connection: Connection) -> None:
        # A deferred transaction that reads and then writes can fail half-way, and two could read the same balance.
        read_only = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _full(error: BaseException) -> bool:
    """Whether the server has as many clients as it takes."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == TOO_MANY_CONNECTIONS


@retry(
    retry=retry_if_exception(_full),
    wait=wait_random(0.05, 0.5),
    stop=stop_after_delay(CONNECT_TIMEOUT_S),
    reraise=True,
)
async def _begun(stack: AsyncExitStack, engine: AsyncEngine) -> AsyncConnection:
    """A transaction that the stack ends. Where the server is full, it waits for another client to go, or for a
    connection of ours that is free again.
    """
    return await stack.enter_async_context(engine.begin())


def _upgrade(connection: Connection, create: bool) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    found, known = MigrationContext.configure(connection).get_current_revision(), scripts.get_current_head()
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise LedgerMisuse(
            f"the ledger has the schema {found} of a later kinetics-serve, and this one knows schemas up to {known}: "
            "upgrade this installation, or restore a backup from before the upgrade"
        )
    if found is None and not create:
        raise LedgerMisuse(f"the ledger {connection.engine.url.database} can't be opened: {NO_LEDGER}")
    command.upgrade(config, "head")


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Without the driver's message in what a client sees: it can name hosts and users."""
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeout, OSError) as error:  # a refused connection is an OSError, unwrapped
        logger.error("the ledger: %s", error)
        raise LedgerUnavailable("the ledger's database gives no answer") from error
