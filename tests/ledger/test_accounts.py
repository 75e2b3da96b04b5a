"""All tenants at once, on both databases."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import event

from kinetics_serve.ledger.errors import LedgerMisuse, NotInLedger
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import DAY_S
from tests.ledger.conftest import Clock, key_of, settle, tenant


async def spend(ledger: Ledger, name: str, *amounts: int, running: int = 0) -> None:
    owner = await ledger.tenant(name)
    for amount in amounts:
        id = uuid.uuid4().hex
        await ledger.reserve(id, owner, "m", "single", amount)
        await settle(ledger, id, owner, amount)
    if running:
        await ledger.reserve(uuid.uuid4().hex, owner, "m", "single", running)


async def test_they_stand_as_each_of_them_stands_alone(ledger: Ledger, clock: Clock) -> None:
    await tenant(ledger, "slow", window_eflops=10**31, window_s=30 * DAY_S)
    await tenant(ledger, "quick", month_eflops=10**31, window_s=3600)
    await tenant(ledger, "idle")
    for name in ("slow", "quick"):
        await spend(ledger, name, 3 * 10**30)
    clock.now += 2 * 3600  # out of quick's window
    await spend(ledger, "slow", 7, running=40)
    await spend(ledger, "quick", 11, 13, running=50)
    clock.now += 40 * DAY_S  # in another month; what ran is overdue
    await spend(ledger, "quick", 17, running=60)
    accounts = await ledger.accounts()
    assert [account.tenant.name for account in accounts] == ["idle", "quick", "slow"]
    for account in accounts:
        alone = await ledger.standing(account.tenant)
        key = attrgetter("ends_at")
        assert sorted(account.standing.window, key=key) == sorted(alone.window, key=key)
        assert replace(account.standing, window=()) == replace(alone, window=())
    idle, quick, slow = (account.standing for account in accounts)
    assert (idle.window_spent, idle.month, idle.running) == (0, 0, 0)
    assert (quick.window_spent, quick.month, quick.reserved, quick.running) == (17, 17, 60, 1)
    assert (slow.window_spent, slow.month, slow.running) == (0, 0, 0)


async def test_each_has_its_own_keys_and_those_that_were_revoked(ledger: Ledger) -> None:
    await tenant(ledger, "acme")
    await tenant(ledger, "other")
    first, secret = await ledger.create_key("acme", "ci")
    await ledger.create_key("other", "")
    revoked = await ledger.revoke_key(first.id)
    assert revoked == replace(first, revoked_at=ledger.now)
    assert await ledger.owner(secret) is None
    acme, other = await ledger.accounts()
    assert acme.keys == (revoked,)
    assert [key.revoked_at for key in other.keys] == [None]


@contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    statements: list[str] = []
    engine = ledger.database._engine.sync_engine

    def heard(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", heard)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", heard)


async def test_more_tenants_need_no_more_queries(ledger: Ledger) -> None:
    numbers = []
    for count in (1, 12):
        for number in range(count):
            owner = await tenant(ledger, f"tenant {number}")
            await key_of(ledger, owner)
            await spend(ledger, owner.name, 5, running=7)
        with counted(ledger) as statements:
            assert len(await ledger.accounts()) == count
        numbers.append(len(statements))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("", {}, "1 to 100 printable"),
        ("a" * 101, {}, "1 to 100 printable"),
        ("a\x00b", {}, "1 to 100 printable"),
        ("acme", {"window_s": None}, "a window has a length"),
        ("acme", {"window_s": 367 * DAY_S}, "366 days"),
        ("acme", {"concurrency": 0}, "from 1 to a million"),
        ("acme", {"models": ["\ud800"]}, "printable"),
    ],
)
async def test_what_no_limit_can_be_is_refused_with_its_reason(
    ledger: Ledger, name: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LedgerMisuse, match=words):
        await ledger.set_tenant(name, changes)
    assert await ledger.accounts() == []


async def test_what_is_not_there_is_named(ledger: Ledger) -> None:
    await tenant(ledger)
    for name in ("nobody", "\x00", "a" * 10_000):
        with pytest.raises(NotInLedger, match="there is no tenant"):
            await ledger.create_key(name, "")
    for key_id in (0, -1, 7, 2**31, 10**30):
        with pytest.raises(NotInLedger, match=f"id {key_id}"):
            await ledger.revoke_key(key_id)
    with pytest.raises(LedgerMisuse, match="up to 100 printable"):
        await ledger.create_key("acme", "a\nb")
