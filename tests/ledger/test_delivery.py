"""Answered means booked, once, whatever becomes of the database meanwhile."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kinetics_serve.ledger import outbox_file
from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.database import LOCK_TIMEOUT_S, Database
from kinetics_serve.ledger.errors import LedgerUnavailable, OutboxUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import Change, OutboxFile
from kinetics_serve.ledger.settlement import Settlement
from tests.e2e.conftest import until
from tests.ledger.conftest import Clock, delivering, tenant

BOOKED_S = 60.0


@pytest.fixture
async def ledger(tmp_path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    """On SQLite, in a file that can be taken away."""
    ledger = Ledger(Database(str(tmp_path / "ledger.db")), lease_s=60, clock=clock)
    await ledger.database.migrate()
    yield ledger
    await ledger.close()


def bill_of(owner: Tenant, ledger: Ledger, number: int = 1) -> Settlement:
    return Settlement(f"{number:032x}", owner.id, owner.name, "m", "auto", 100, 7, ledger.now)


def take_away(folder: Path) -> None:
    (folder / "ledger.db").rename(folder / "away.db")


def bring_back(folder: Path) -> None:
    (folder / "away.db").rename(folder / "ledger.db")


async def spent(ledger: Ledger) -> list[tuple[int, int]]:
    return [(row.requests, row.eflops) for row in await ledger.usage()]


async def until_booked(ledger: Ledger, requests: int) -> None:
    deadline = time.monotonic() + BOOKED_S
    while sum(row.requests for row in await ledger.usage()) != requests:
        assert time.monotonic() < deadline, await ledger.usage()
        await asyncio.sleep(0.05)


def waiting(folder: Path) -> list[Settlement]:
    file = OutboxFile(folder / "outbox")
    try:
        return file.waiting(1000)
    finally:
        file.close()


def rejected(folder: Path) -> set[str]:
    file = OutboxFile(folder / "outbox")
    try:
        return {bill.id for bill, _ in file.rejected()}
    finally:
        file.close()


async def test_a_request_that_was_answered_while_the_database_was_away_is_booked_when_it_is_back(
    ledger: Ledger, tmp_path: Path
) -> None:
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        for _ in range(3):
            async with Charge(delivery, owner, "m", "auto", 100, lambda: 7):
                take_away(tmp_path)
            assert [bill.spent for bill in waiting(tmp_path)] == [7]
            bring_back(tmp_path)
            await until(lambda: not waiting(tmp_path), BOOKED_S)
    assert await spent(ledger) == [(3, 21)]
    assert (await ledger.standing(owner)).running == 0


async def test_a_database_that_hangs_holds_no_answer_back(ledger: Ledger, tmp_path: Path) -> None:
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for number in range(4):
            began = time.monotonic()
            await delivery.settle(bill_of(owner, ledger, number))
            assert time.monotonic() - began < LOCK_TIMEOUT_S / 2
        assert len(waiting(tmp_path)) == 4
        holder.close()
        await until_booked(ledger, 4)


async def test_bills_from_before_a_restart_are_booked_at_the_start(ledger: Ledger, tmp_path: Path) -> None:
    owner = await tenant(ledger)
    file = OutboxFile(tmp_path / "outbox")
    file.write([Change(put=[bill_of(owner, ledger, number) for number in range(3)])])
    file.close()
    async with delivering(ledger, tmp_path / "outbox"):
        await until_booked(ledger, 3)
    assert waiting(tmp_path) == []


async def test_bills_are_booked_once_though_several_deliver_them(ledger: Ledger, tmp_path: Path) -> None:
    owner = await tenant(ledger)
    async with (
        delivering(ledger, tmp_path / "outbox") as one,
        delivering(ledger, tmp_path / "outbox") as two,
        delivering(ledger, tmp_path / "outbox"),
    ):
        bills = [bill_of(owner, ledger, number) for number in range(50)]
        await asyncio.gather(*(delivery.settle(bill) for delivery in (one, two) for bill in bills))
        await until_booked(ledger, 50)
        await asyncio.sleep(0.5)
    assert await spent(ledger) == [(50, 350)]


async def test_a_bill_that_can_not_be_booked_stays_and_stops_no_other(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await tenant(ledger)
    strange = replace(bill_of(owner, ledger, 2), tenant_id=owner.id + 1)
    outsized = replace(bill_of(owner, ledger, 3), spent=10**50, reserved=10**50)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        bills = [bill_of(owner, ledger, 1), outsized, strange, bill_of(owner, ledger, 4)]
        await asyncio.gather(*map(delivery.settle, bills))
        await until_booked(ledger, 2)
        await until(lambda: rejected(tmp_path) == {strange.id, outsized.id}, BOOKED_S)
    assert "this ledger has no tenant 'acme' with the id 2" in caplog.text


async def test_where_the_outbox_can_not_be_written_nothing_runs_and_what_ran_is_booked_all_the_same(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        async with Charge(delivery, owner, "m", "auto", 100, lambda: 7):

            def full(*_: object) -> None:
                raise OutboxUnavailable("the disk is full")

            monkeypatch.setattr(OutboxFile, "write", full)
            monkeypatch.setattr(OutboxFile, "check", full)
        assert await spent(ledger) == [(1, 7)]
        with pytest.raises(OutboxUnavailable, match="nothing runs"):
            async with Charge(delivery, owner, "m", "auto", 100, lambda: 7):
                raise AssertionError("it runs")
        assert (await ledger.standing(owner)).running == 0


async def test_a_late_bill_is_counted(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        async with Charge(delivery, owner, "m", "auto", 100, lambda: 7):
            clock.now += 61
            await ledger.expire()
        await until(lambda: b"kinetics_late_settlements_total 1.0" in delivery._metrics.exposition(), BOOKED_S)
        assert b"kinetics_late_settlement_eflops_total 7.0" in delivery._metrics.exposition()


async def test_what_many_requests_write_at_once_is_one_transaction(tmp_path: Path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    transactions = []
    write = file.write
    file.write = lambda changes: (transactions.append(len(changes)), write(changes))[1]  # type: ignore[method-assign, func-returns-value]
    outbox = Outbox(file)
    bill = Settlement("", 1, "acme", "m", "auto", 100, 7, 1_767_268_800)
    await asyncio.gather(*(outbox.put(replace(bill, id=f"{number:032x}")) for number in range(200)))
    assert sum(transactions) == 200
    assert len(transactions) <= 3
    assert (await outbox.pending()).entries == 200
    await outbox.close()


async def test_the_metrics_say_what_waits(ledger: Ledger, tmp_path: Path) -> None:
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        await asyncio.sleep(0.2)
        take_away(tmp_path)
        await delivery.settle(bill_of(owner, ledger))

        def shown(name: str) -> float:
            lines = delivery._metrics.exposition().decode().splitlines()
            (value,) = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
            return float(value)

        await until(lambda: shown("kinetics_outbox_oldest_seconds") >= 1, BOOKED_S)
        assert shown("kinetics_outbox_bills") == 1
        bring_back(tmp_path)
        await until_booked(ledger, 1)


async def test_a_slow_outbox_holds_no_answer_back_that_the_database_has(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_file, "LOCK_TIMEOUT_S", 60.0)
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        await delivery.check()
        holder = sqlite3.connect(tmp_path / "outbox", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        await delivery.settle(bill_of(owner, ledger))
        assert time.monotonic() - began < outbox_file.LOCK_TIMEOUT_S / 2
        assert await spent(ledger) == [(1, 7)]
        holder.close()


async def test_an_outbox_that_fails_and_then_the_database_too_leave_deliveries_going_on(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox_file, "LOCK_TIMEOUT_S", 0.5)
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        await delivery.check()
        holder = sqlite3.connect(tmp_path / "outbox", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        await delivery.settle(bill_of(owner, ledger, 1))  # the database has it before the outbox fails
        await asyncio.sleep(1)
        holder.close()
        take_away(tmp_path)
        await delivery.settle(bill_of(owner, ledger, 2))
        await asyncio.sleep(1.5)
        bring_back(tmp_path)
        await until_booked(ledger, 2)
        await delivery.settle(bill_of(owner, ledger, 3))
        await until_booked(ledger, 3)
        assert await spent(ledger) == [(3, 21)]
    assert "lost" not in caplog.text


class OneLocked:
    """A ledger in which somebody holds a tenant's row."""

    def __init__(self, ledger: Ledger, locked: str) -> None:
        self.ledger = ledger
        self.locked: str | None = locked

    async def settle(self, bills: Sequence[Settlement]) -> list[Settlement]:
        if bills[0].tenant == self.locked:
            raise LedgerUnavailable("its row is locked")
        return await self.ledger.settle(bills)

    async def forget(self) -> None:
        await self.ledger.forget()


async def test_a_tenant_whose_row_is_locked_holds_no_other_tenants_bills_back(ledger: Ledger, tmp_path: Path) -> None:
    first, second = [await ledger.set_tenant(name, {}) for name in ("first", "second")]
    one_locked = OneLocked(ledger, "first")
    # A delivery uses no more of a ledger than OneLocked has.
    async with delivering(one_locked, tmp_path / "outbox") as delivery:  # type: ignore[arg-type]
        await delivery.settle(bill_of(first, ledger, 1))
        for number in (2, 3):
            await delivery.settle(bill_of(second, ledger, number))
        await until_booked(ledger, 2)
        assert {row.tenant for row in await ledger.usage()} == {"second"}
        one_locked.locked = None
        await until_booked(ledger, 3)


@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_a_request_that_is_cancelled_while_it_reserves_leaves_nothing_however_often(
    ledger: Ledger, tmp_path: Path, cancellations: int
) -> None:
    """A deadline, and then its client leaves too: each in a turn of its own of the event loop."""
    owner = await tenant(ledger)
    async with delivering(ledger, tmp_path / "outbox") as delivery:
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        entering = asyncio.create_task(Charge(delivery, owner, "m", "auto", 100, lambda: 7).__aenter__())
        for _ in range(cancellations):
            await asyncio.sleep(0.2)
            entering.cancel()
        await asyncio.sleep(0.2)
        holder.close()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await asyncio.sleep(1)
    assert (await ledger.standing(owner)).running == 0
