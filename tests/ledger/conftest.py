"""Ledgers on both databases, and a front-end with one."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from kinetics_serve.ledger import keys, tables, tenants
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.delivery import Delivery
from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import OutboxFile
from kinetics_serve.ledger.settlement import Settlement
from kinetics_serve.observability.metrics import Metrics
from tests.fake_vllm import FakeVllm, running_fake_vllm
from tests.ledger.postgres import running_postgres
from tests.ledger.server import FrontEnd, front_end

START_TIMEOUT_S = 120
NOON = 1_767_268_800  # 2026-01-01 12:00 UTC


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with the ledger's schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.db"
    else:
        url = request.getfixturevalue("postgres")
        await emptied(url)
    database = Database(url)
    await database.migrate()
    await database.close()
    return url


async def emptied(url: str) -> None:
    """Drops everything, when the server has started."""
    database = Database(url)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            async with database.write() as connection:
                await connection.execute(text("DROP SCHEMA public CASCADE"))
                await connection.execute(text("CREATE SCHEMA public"))
            break
        except LedgerUnavailable:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
    await database.close()


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now = float(NOON)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(url: str, clock: Clock) -> AsyncIterator[Ledger]:
    ledger = Ledger(Database(url), lease_s=60, clock=clock)
    yield ledger
    await ledger.close()


async def tenant(ledger: Ledger, name: str = "acme", **limits: Any) -> Tenant:
    """A tenant with these limits, made or changed."""
    async with ledger.database.write() as connection:
        return await tenants.save(connection, name, limits, ledger.now)


async def key_of(ledger: Ledger, owner: Tenant) -> str:
    async with ledger.database.write() as connection:
        return await keys.create(connection, owner, "test", ledger.now)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a bill waits until it is booked, on a busy machine too."""
    monkeypatch.setattr("kinetics_serve.ledger.delivery.MOMENT_S", 60.0)


@pytest.fixture
async def delivery(ledger: Ledger, tmp_path: Path, patience: None) -> AsyncIterator[Delivery]:
    async with delivering(ledger, tmp_path / "outbox") as running:
        yield running


@asynccontextmanager
async def delivering(ledger: Ledger, outbox: Path) -> AsyncIterator[Delivery]:
    """Brings bills from that outbox to the ledger meanwhile."""
    delivery = Delivery(ledger, Outbox(OutboxFile(outbox)), Metrics())
    running = asyncio.create_task(delivery.run())
    try:
        yield delivery
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await delivery.close()


async def noted(ledger: Ledger) -> int:
    """eFLOPs that running requests had spent by their last notes."""
    async with ledger.database.read() as connection:
        return sum((await connection.execute(select(tables.reservations.c.spent))).scalars())


def with_lease(ledger: Ledger, lease_s: int) -> Ledger:
    return replace(ledger, lease_s=lease_s)


async def settle(ledger: Ledger, id: str, owner: Tenant, spent: int, reserved: int = 10**39) -> None:
    """Books it, as delivery does. It ran on model m, by the strategy `single`, and has ended now."""
    await ledger.settle([Settlement(id, owner.id, owner.name, "m", "single", reserved, spent, ledger.now)])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("front-end")


@pytest.fixture(scope="session")
def fake_server(folder: Path) -> Iterator[FakeVllm]:
    with running_fake_vllm(folder) as fake:
        yield fake


@pytest.fixture
def fake(fake_server: FakeVllm) -> FakeVllm:
    fake_server.requests.clear()
    fake_server.token_s, fake_server.tokens, fake_server.aborted, fake_server.generated = 0.0, 8, 0, 0
    return fake_server


@pytest.fixture(scope="session")
def shared(fake_server: FakeVllm, folder: Path) -> Iterator[FrontEnd]:
    """What it has answered is booked."""
    database, log = f"sqlite:///{folder}/ledger.db", folder / "log"
    with front_end(fake_server, database, folder, log, module="tests.ledger.patient") as running:
        yield running


@pytest.fixture
def server(shared: FrontEnd, fake: FakeVllm) -> FrontEnd:
    return shared
