"""What is admitted, and when a refused request can come back."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kinetics_serve.ledger.errors import QuotaExceeded, RequestTooLarge
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import DAY_S
from kinetics_serve.ledger.quotas import RUNNING_RETRY_S, bucket_end
from tests.ledger.conftest import Clock, settle, tenant

HOUR = 3600


async def spend(ledger: Ledger, owner_name: str, eflops: int, number: int) -> None:
    owner = await tenant(ledger, owner_name)
    await ledger.reserve(f"{number:032x}", owner, "m", "single", eflops)
    await settle(ledger, f"{number:032x}", owner, eflops)


async def test_a_request_waits_until_enough_of_the_window_has_expired_and_not_longer(
    ledger: Ledger, clock: Clock
) -> None:
    owner = await tenant(ledger, window_eflops=100, window_s=HOUR)
    for number, eflops in enumerate((30, 30, 40)):
        await spend(ledger, "acme", eflops, number)
        clock.now += 600
    with pytest.raises(QuotaExceeded) as caught:
        await ledger.reserve("a" * 32, owner, "m", "single", 50)
    wait = caught.value.retry_after_s
    assert wait is not None
    assert HOUR - 1200 < wait <= HOUR - 1200 + 15 + 1  # the second spending's bucket of 15 s
    clock.now += wait - 1
    with pytest.raises(QuotaExceeded):
        await ledger.reserve("a" * 32, owner, "m", "single", 50)
    clock.now += 1
    await ledger.reserve("a" * 32, owner, "m", "single", 50)


async def test_a_months_quota_comes_back_with_the_next_month(ledger: Ledger, clock: Clock) -> None:
    owner = await tenant(ledger, month_eflops=100)
    clock.now = datetime(2026, 12, 31, 23, 0, tzinfo=UTC).timestamp()
    await spend(ledger, "acme", 100, 1)
    with pytest.raises(QuotaExceeded) as caught:
        await ledger.reserve("a" * 32, owner, "m", "single", 1)
    assert caught.value.retry_after_s == HOUR
    clock.now += HOUR
    await ledger.reserve("a" * 32, owner, "m", "single", 100)


async def test_what_running_requests_reserved_is_gone_until_they_settle(ledger: Ledger) -> None:
    owner = await tenant(ledger, window_eflops=100)
    await ledger.reserve("a" * 32, owner, "m", "single", 90)
    with pytest.raises(QuotaExceeded) as caught:
        await ledger.reserve("b" * 32, owner, "m", "single", 20)
    assert caught.value.retry_after_s == RUNNING_RETRY_S
    await settle(ledger, "a" * 32, owner, 10)
    await ledger.reserve("b" * 32, owner, "m", "single", 90)


async def test_concurrency_counts_running_requests_only(ledger: Ledger) -> None:
    owner = await tenant(ledger, concurrency=2)
    for id in ("a", "b"):
        await ledger.reserve(id * 32, owner, "m", "single", 1)
    with pytest.raises(QuotaExceeded, match="2 of its 2 requests"):
        await ledger.reserve("c" * 32, owner, "m", "single", 1)
    await settle(ledger, "a" * 32, owner, 1)
    await ledger.reserve("c" * 32, owner, "m", "single", 1)


@pytest.mark.parametrize("limit", ["request_eflops", "window_eflops", "month_eflops"])
async def test_what_can_never_be_reserved_names_the_maximum(ledger: Ledger, limit: str) -> None:
    limits: dict[str, Any] = {limit: 12345}
    owner = await tenant(ledger, **limits)
    with pytest.raises(RequestTooLarge, match="12345") as caught:
        await ledger.reserve("a" * 32, owner, "m", "single", 12346)
    assert caught.value.maximum == 12345
    await ledger.reserve("a" * 32, owner, "m", "single", 12345)


async def test_a_changed_limit_holds_from_the_next_request_on(ledger: Ledger) -> None:
    owner = await tenant(ledger, window_eflops=100)
    await tenant(ledger, window_eflops=50)
    with pytest.raises(RequestTooLarge):
        await ledger.reserve("a" * 32, owner, "m", "single", 60)


async def test_tenants_do_not_share_quotas(ledger: Ledger) -> None:
    for name in ("acme", "other"):
        owner = await tenant(ledger, name, window_eflops=100, concurrency=1)
        await ledger.reserve(name[0] * 32, owner, "m", "single", 100)


@pytest.mark.parametrize("window_s", [1, 60, HOUR, DAY_S, 30 * DAY_S])
def test_a_bucket_ends_after_what_it_holds_and_within_a_240th_of_the_window(window_s: int) -> None:
    for at in range(1_767_268_800, 1_767_268_800 + 1000, 7):
        assert at < bucket_end(at, window_s) <= at + max(1, window_s // 240)
