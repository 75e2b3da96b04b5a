"""What becomes of reservations that nobody settles."""

import asyncio
import time
from pathlib import Path

import pytest

from kinetics_serve.ledger.charge import Charge
from kinetics_serve.ledger.database import LOCK_TIMEOUT_S
from kinetics_serve.ledger.delivery import Delivery
from kinetics_serve.ledger.errors import QuotaExceeded
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.settlement import DAY_S, KEEP_SETTLED_DAYS, Settlement
from tests.ledger.conftest import Clock, delivering, noted, settle, tenant, with_lease

A, B = "a" * 32, "b" * 32


async def spent(ledger: Ledger) -> list[tuple[str, int, int]]:
    return [(row.strategy, row.requests, row.eflops) for row in await ledger.usage()]


async def test_an_expired_reservation_is_charged_what_was_last_noted_and_frees_the_rest(
    ledger: Ledger, clock: Clock
) -> None:
    owner = await tenant(ledger, window_eflops=100, concurrency=1)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += ledger.lease_s - 1
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(B, owner, "m", "single", 70)
    clock.now += 1
    await ledger.reserve(B, owner, "m", "single", 70)
    assert await spent(ledger) == [("single", 1, 30)]


async def test_a_renewed_lease_does_not_expire(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger, concurrency=1)
    await ledger.reserve(A, owner, "m", "single", 100)
    for _ in range(5):
        clock.now += ledger.lease_s - 1
        await ledger.renew(A, 0)
    with pytest.raises(QuotaExceeded):
        await ledger.reserve(B, owner, "m", "single", 1)


async def test_a_slow_front_end_that_settles_after_expiry_is_charged_once_and_in_full(
    ledger: Ledger, clock: Clock
) -> None:
    owner = await tenant(ledger)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += ledger.lease_s
    await ledger.expire()
    await ledger.renew(A, 40)
    await settle(ledger, A, owner, 50)
    await settle(ledger, A, owner, 50)
    assert await spent(ledger) == [("single", 1, 50)]


@pytest.mark.parametrize("bill", [0, 10, 90])
async def test_a_late_bill_replaces_what_was_noted_be_it_more_or_less(ledger: Ledger, clock: Clock, bill: int) -> None:
    owner = await tenant(ledger, window_eflops=100)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += 2 * ledger.lease_s
    await ledger.expire()
    assert await spent(ledger) == [("single", 1, 30)]
    for _ in range(2):
        await settle(ledger, A, owner, bill)
        assert await spent(ledger) == ([("single", 1, bill)] if bill else [])
    standing = await ledger.standing(owner)
    assert (standing.window_spent, standing.month, standing.reserved) == (bill, bill, 0)


@pytest.mark.parametrize("bill", [0, 10, 90])
@pytest.mark.parametrize(("window_s", "changed_s"), [(DAY_S, 3600), (3600, DAY_S)])
async def test_a_late_bill_replaces_what_was_noted_where_the_window_was_changed_meanwhile(
    ledger: Ledger, clock: Clock, window_s: int, changed_s: int, bill: int
) -> None:
    owner = await tenant(ledger, window_eflops=1000, window_s=window_s)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += ledger.lease_s
    await ledger.expire()
    await tenant(ledger, window_s=changed_s)
    clock.now += 20
    await settle(ledger, B, owner, 5)
    clock.now += 700
    await settle(ledger, A, owner, bill)
    standing = await ledger.standing(owner)
    assert (standing.window_spent, standing.month) == (5 + bill, 5 + bill)


async def test_a_late_bill_replaces_what_was_noted_where_the_clock_was_set_back_meanwhile(
    ledger: Ledger, clock: Clock
) -> None:
    owner = await tenant(ledger, window_eflops=100)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += ledger.lease_s
    await ledger.expire()
    clock.now -= 2 * DAY_S
    assert (await ledger.standing(owner)).window_spent == 30
    clock.now += 3600
    await settle(ledger, A, owner, 40)
    assert (await ledger.standing(owner)).window_spent == 40


async def test_a_late_bill_takes_nothing_of_other_requests_where_what_was_noted_has_left_the_window(
    ledger: Ledger, clock: Clock
) -> None:
    owner = await tenant(ledger, window_eflops=100, window_s=3600)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    ended = ledger.now
    clock.now += ledger.lease_s
    await ledger.expire()
    clock.now += 2 * 3600
    await settle(ledger, B, owner, 50)
    await ledger.settle([Settlement(A, owner.id, owner.name, "m", "single", 100, 40, ended)])
    standing = await ledger.standing(owner)
    assert (standing.window_spent, standing.month) == (50, 90)


async def test_leases_end_by_themselves_when_the_clock_has_been_set_back(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger, concurrency=1)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now -= 40 * DAY_S
    assert (await ledger.standing(owner)).running == 1  # it may run yet: the lease is as long as one that begins now
    clock.now += ledger.lease_s
    await ledger.reserve(B, owner, "m", "single", 1)
    assert await spent(ledger) == [("single", 1, 30)]


async def test_leases_of_all_tenants_end_when_the_clock_has_been_set_back(ledger: Ledger, clock: Clock) -> None:
    await ledger.reserve(A, await tenant(ledger), "m", "single", 100)
    clock.now -= DAY_S
    await ledger.expire()
    clock.now += ledger.lease_s
    await ledger.expire()
    assert (await ledger.standing(await tenant(ledger))).running == 0


async def test_a_month_counts_no_day_that_is_yet_to_come(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger, month_eflops=100, window_eflops=100)
    await settle(ledger, A, owner, 60)
    clock.now -= 40 * DAY_S
    standing = await ledger.standing(owner)
    assert standing.month == 0
    assert standing.window_spent == 60
    clock.now += owner.limits.window_s + 1000
    assert (await ledger.standing(owner)).window_spent == 0, "it leaves the window a window after it was noticed"


async def test_an_expiry_is_booked_on_the_day_that_the_lease_ran_out(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger)
    await ledger.reserve(A, owner, "m", "single", 100)
    await ledger.renew(A, 30)
    clock.now += 3 * 86_400
    assert [row.day.isoformat() for row in await ledger.usage()] == ["2026-01-01"]
    standing = await ledger.standing(owner)
    assert (standing.window_spent, standing.month, standing.reserved) == (0, 30, 0)


async def test_settling_again_changes_nothing(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    await ledger.reserve(A, owner, "m", "single", 100)
    for _ in range(3):
        await settle(ledger, A, owner, 10)
    assert await spent(ledger) == [("single", 1, 10)]


async def test_a_bill_whose_reservation_the_database_has_lost_is_booked_once(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    for _ in range(2):
        await settle(ledger, A, owner, 10)
    assert await spent(ledger) == [("single", 1, 10)]


async def test_a_bill_from_before_what_is_remembered_is_not_booked_again(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger)
    await settle(ledger, A, owner, 10)
    bill = Settlement(A, owner.id, owner.name, "m", "single", 100, 10, ledger.now)
    clock.now += (KEEP_SETTLED_DAYS + 2) * DAY_S
    await ledger.forget()
    await ledger.settle([bill])
    assert await spent(ledger) == [("single", 1, 10)]


async def test_many_bills_of_a_tenant_are_booked_together(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    ids = [f"{number:032x}" for number in range(5)]
    for id in ids:
        await ledger.reserve(id, owner, "m", "single", 100)
    bills = [Settlement(id, owner.id, owner.name, "m", "single", 100, 7, ledger.now) for id in [*ids, *ids]]
    assert await ledger.settle(bills) == []
    assert await spent(ledger) == [("single", 5, 35)]
    assert (await ledger.standing(owner)).running == 0


async def test_no_bill_is_higher_than_its_reservation(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    await ledger.reserve(A, owner, "m", "single", 100)
    await settle(ledger, A, owner, 101, reserved=100)
    assert await spent(ledger) == [("single", 1, 100)]


async def test_nothing_spent_is_not_booked(ledger: Ledger) -> None:
    owner = await tenant(ledger)
    await ledger.reserve(A, owner, "m", "single", 100)
    await settle(ledger, A, owner, 0)
    assert await ledger.usage() == []
    assert (await ledger.standing(owner)).reserved == 0


async def test_a_charge_renews_while_inside_and_settles_when_left(ledger: Ledger, clock: Clock, tmp_path: Path) -> None:
    owner = await tenant(ledger, window_eflops=100)
    quick = with_lease(ledger, 1)
    now = 0
    async with (
        delivering(quick, tmp_path / "outbox") as delivery,
        Charge(delivery, owner, "m", "auto", 100, lambda: now),
    ):
        for now in (5, 10, 15):
            clock.now += 0.9
            async with asyncio.timeout(60):
                while await noted(quick) != now:
                    await asyncio.sleep(0.05)
        assert (await quick.standing(owner)).reserved == 100
    assert await spent(ledger) == [("auto", 1, 15)]


async def test_a_charge_settles_when_its_request_fails(ledger: Ledger, delivery: Delivery) -> None:
    owner = await tenant(ledger)
    with pytest.raises(ZeroDivisionError):
        async with Charge(delivery, owner, "m", "auto", 100, lambda: 7):
            raise ZeroDivisionError
    assert await spent(ledger) == [("auto", 1, 7)]
    assert (await ledger.standing(owner)).running == 0


async def test_clients_that_leave_at_any_moment_hold_nothing_and_block_nobody(
    ledger: Ledger, delivery: Delivery
) -> None:
    owner = await tenant(ledger)
    quick = with_lease(ledger, 1)

    async def ask() -> None:
        async with Charge(delivery, owner, "m", "auto", 100, lambda: 1):
            await asyncio.sleep(0.4)  # long enough for a renewal to be interrupted too

    for number in range(30):
        started = time.monotonic()
        task = asyncio.create_task(ask())
        await asyncio.sleep(number * 0.0007 if number % 3 else 0.33 + number * 0.001)
        task.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        standing = await quick.standing(owner)
        assert (standing.running, standing.reserved) == (0, 0)
        assert time.monotonic() - started < LOCK_TIMEOUT_S, "a transaction was left open"
