"""The schema, the amounts, and what databases are accepted."""

import asyncio
import stat
from datetime import date
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import StatementError

from kinetics_serve.ledger.amounts import DIGITS, parse
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.tables import metadata, settlements, usage
from tests.ledger.conftest import Clock, emptied, settle, tenant

AMOUNTS = [0, 1, 2**63, 2**64 + 1, 10**30 + 1, 10**DIGITS - 1]


async def test_migrations_make_exactly_the_declared_tables(ledger: Ledger) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with ledger.database.read() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_front_ends_that_start_together_migrate_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path}/new.db" if kind == "sqlite" else request.getfixturevalue("postgres")
    if kind == "postgresql":
        await emptied(url)
    databases = [Database(url) for _ in range(3)]
    await asyncio.gather(*(database.migrate() for database in databases))
    for database in databases:
        await database.close()


@pytest.mark.parametrize("amount", AMOUNTS)
async def test_amounts_beyond_64_bits_come_back_exactly(ledger: Ledger, amount: int) -> None:
    owner = await tenant(ledger, month_eflops=amount)
    assert owner.limits.month_eflops == amount
    assert (await tenant(ledger, window_eflops=amount)).limits.month_eflops == amount


@pytest.mark.parametrize("amount", [-1, 10**DIGITS])
async def test_amounts_that_would_not_fit_are_refused(ledger: Ledger, amount: int) -> None:
    with pytest.raises(StatementError, match="an amount must be"):
        await tenant(ledger, month_eflops=amount)


async def test_spending_beyond_64_bits_adds_up_exactly(ledger: Ledger) -> None:
    owner = await tenant(ledger, month_eflops=3 * 10**30)
    for number in range(20):
        id = f"{number:032x}"
        await ledger.reserve(id, owner, "m", "single", 10**29 + number)
        await settle(ledger, id, owner, 10**29 + number)
    expected = 20 * 10**29 + sum(range(20))
    assert [row.eflops for row in await ledger.usage()] == [expected]
    standing = await ledger.standing(owner)
    assert standing.month == standing.window_spent == expected


async def test_stored_amounts_sort_as_numbers(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    async with ledger.database.write() as connection:
        for amount in AMOUNTS:
            row = {"tenant_id": owner.id, "day": date(2026, 1, 1), "strategy": "x", "requests": 1}
            await connection.execute(insert(usage).values(**row, model=f"{amount:e}", eflops=amount))
        order = (await connection.execute(select(usage.c.eflops).order_by(usage.c.eflops.desc()))).scalars().all()
    assert order == sorted(AMOUNTS, reverse=True)


@pytest.mark.parametrize(("written", "amount"), [("4e13", 4 * 10**13), ("1e30", 10**30), ("0", 0), ("123", 123)])
def test_amounts_are_read_as_they_are_written(written: str, amount: int) -> None:
    assert parse(written) == amount


@pytest.mark.parametrize("written", ["", "much", "-1", "1.5", "nan", "inf", "1e40", "1e999999999"])
def test_amounts_that_make_no_sense_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="expected whole eFLOPs"):
        parse(written)


async def test_sqlite_keeps_a_write_ahead_log_in_a_file_of_the_owners(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "plain-name.db"))
    await database.migrate()
    async with database.read() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {0o600}
    await database.close()


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "postgresql//x:y"])
def test_other_urls_are_refused_without_repeating_their_password(url: str) -> None:
    with pytest.raises(LedgerMisuse) as caught:
        Database(url)
    assert "sqlite:///FILE" in str(caught.value)


async def test_an_unreachable_database_is_unavailable_and_not_named_to_clients() -> None:
    database = Database("postgresql://someone:secret@127.0.0.1:1/name")
    with pytest.raises(LedgerUnavailable) as caught:
        async with database.read():
            pass
    assert "secret" not in str(caught.value)


async def test_where_a_server_is_full_transactions_take_turns_on_the_connections_that_there_are(postgres: str) -> None:
    await emptied(postgres)
    administrator = Database(postgres)
    async with administrator.write() as connection:
        for command in ("DROP ROLE IF EXISTS few", "CREATE ROLE few LOGIN CONNECTION LIMIT 2"):
            await connection.execute(text(command))
    front_end = Database(postgres.replace("postgres@", "few@"))

    async def use() -> None:
        async with front_end.read() as connection:
            await connection.execute(text("SELECT pg_sleep(0.02)"))

    await asyncio.gather(*(use() for _ in range(20)))
    for database in (administrator, front_end):
        await database.close()


async def test_the_schema_of_a_later_release_is_refused_with_what_to_do(url: str) -> None:
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerMisuse, match=r"schema 9999 of a later kinetics-serve.*upgrade this installation"):
        await database.migrate()
    await database.close()


async def test_spending_from_before_single_settlements_were_kept_stays_and_is_checked(url: str, clock: Clock) -> None:
    ledger = Ledger(Database(url), lease_s=60, clock=clock)
    owner = await tenant(ledger)
    await ledger.reserve("a" * 32, owner, "m", "single", 100)
    await settle(ledger, "a" * 32, owner, 10)
    await ledger.reserve("b" * 32, owner, "m", "single", 100)
    await ledger.renew("b" * 32, 5)
    clock.now += 60
    await ledger.expire()
    async with ledger.database.write() as connection:
        await connection.execute(text("DROP TABLE settlements"))
        await connection.execute(text("DROP TABLE identity"))
        await connection.execute(text("ALTER TABLE reservations DROP COLUMN lease_s"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    await ledger.database.migrate()
    async with ledger.database.read() as connection:
        assert (await connection.execute(select(settlements.c.eflops))).scalars().all() == [10]
    assert [row.eflops for row in await ledger.usage()] == [15]
    await ledger.close()


async def test_a_ledger_is_the_same_however_its_url_is_spelled_and_no_other_is(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await emptied(postgres)
    one = postgres.replace("127.0.0.1", "localhost").replace("postgres@", "postgres:secret@")
    identities = []
    for url in (postgres, one, "sqlite:///a.db", str(tmp_path / "a.db"), "b.db"):
        ledger = Ledger(Database(url))
        await ledger.database.migrate()
        identities.append(await ledger.identity())
        await ledger.close()
    server, spelled, a, again, b = identities
    assert server.id == spelled.id
    assert a == again
    assert len({each.id for each in identities}) == 3
    assert "secret" not in spelled.place
    assert b.place == str(tmp_path / "b.db")


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_deleted_or_replaced_is_noticed(
    tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ledger.db"
    database = Database(str(file))
    await database.migrate()
    kept = file.rename(tmp_path / "kept.db")
    if replaced:
        file.write_bytes(b"")
    for use in (database.read, database.write):
        with pytest.raises(LedgerUnavailable):
            async with use():
                pass
    assert "was deleted or replaced" in caplog.text
    kept.rename(file)
    async with database.read():
        pass
    await database.close()
