"""Whether a tenant's quotas cover a request. Pure: the caller holds the tenant's lock and brings what is booked."""

from dataclasses import dataclass
from datetime import UTC, datetime

from kinetics_serve.ledger.errors import QuotaExceeded, RequestTooLarge
from kinetics_serve.ledger.limits import Tenant

RUNNING_RETRY_S = 5
"""Seconds after which to try again where only running requests stand in the way: when they end is not known."""

BUCKETS = 240
"""Parts of a rolling window that spending is summed in. More are finer, and more rows to read per reservation."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Spending up to the moment `ends_at`. It leaves the window at once, a window's length after `ends_at`."""

    ends_at: int
    eflops: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a tenant has spent in the window and this month, and what its running requests have reserved."""

    window: tuple[Bucket, ...] = ()
    month: int = 0
    reserved: int = 0
    running: int = 0

    @property
    def window_spent(self) -> int:
        return sum(bucket.eflops for bucket in self.window)


def bucket_end(at: int, window_s: int) -> int:
    """When the bucket ends that a spending at the time `at` belongs to."""
    width = max(1, window_s // BUCKETS)
    return (at // width + 1) * width


def month_start(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _until_next_month(at: int) -> int:
    start = month_start(at)
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return int(following.timestamp()) - at


def used(tenant: Tenant, standing: Standing) -> dict[str, float]:
    """The share spent of each of its quotas, "window" and "month", that a tenant has."""
    limits = tenant.limits
    quotas = {"window": (standing.window_spent, limits.window_eflops), "month": (standing.month, limits.month_eflops)}
    return {name: spent / limit for name, (spent, limit) in quotas.items() if limit}


def refusal(tenant: Tenant, standing: Standing, eflops: int, now: int) -> QuotaExceeded | RequestTooLarge | None:
    """Why `eflops` can't be reserved at the time `now`, or None where they can."""
    limits = tenant.limits
    maxima = {
        "the maximum per request": limits.request_eflops,
        f"the quota of {limits.window_s} s": limits.window_eflops,
        "the quota of a month": limits.month_eflops,
    }
    stated = {which: limit for which, limit in maxima.items() if limit is not None}
    if stated:
        which, maximum = min(stated.items(), key=lambda item: item[1])
        if eflops > maximum:
            return RequestTooLarge(tenant.name, eflops, maximum, which)
    waits: dict[str, int] = {}
    if limits.concurrency is not None and standing.running >= limits.concurrency:
        waits[f"{tenant.name!r} runs {standing.running} of its {limits.concurrency} requests at a time"] = (
            RUNNING_RETRY_S
        )
    for name, limit, spent, wait in (
        (f"{limits.window_s} s", limits.window_eflops, standing.window_spent, _window_wait),
        ("a month", limits.month_eflops, standing.month, _month_wait),
    ):
        if limit is not None and spent + standing.reserved + eflops > limit:
            over = spent + eflops - limit
            waits[
                f"{tenant.name!r} has {limit} eFLOPs in {name}, of which {spent} are spent and {standing.reserved} "
                f"reserved by running requests; this one may cost up to {eflops}"
            ] = wait(tenant, standing, over, now) if over > 0 else RUNNING_RETRY_S
    if not waits:
        return None
    reason = max(waits, key=lambda reason: waits[reason])
    return QuotaExceeded(reason, max(1, waits[reason]))


def _window_wait(tenant: Tenant, standing: Standing, over: int, now: int) -> int:
    """Seconds until `over` eFLOPs have left the window. What runs may end without spending: it is not waited for."""
    left = over
    for bucket in sorted(standing.window, key=lambda bucket: bucket.ends_at):
        left -= bucket.eflops
        if left <= 0:
            return bucket.ends_at + tenant.limits.window_s - now
    raise AssertionError("a request within the quota fits an empty window")


def _month_wait(tenant: Tenant, standing: Standing, over: int, now: int) -> int:
    return _until_next_month(now)
