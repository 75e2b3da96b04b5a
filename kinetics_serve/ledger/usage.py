"""What was spent: booking and reporting it."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Table, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.quotas import Bucket, bucket_end, month_start


@dataclass(frozen=True, slots=True)
class Spending:
    """A day's (UTC) requests of one tenant, model and strategy, and the eFLOPs that they cost."""

    tenant: str
    day: date
    model: str
    strategy: str
    requests: int
    eflops: int


async def book(
    connection: AsyncConnection, tenant: Tenant, model: str, strategy: str, eflops: int, requests: int, at: int
) -> None:
    """Adds to what the tenant has spent at the time `at`. The caller holds the tenant's lock."""
    bucket = {"tenant_id": tenant.id, "ends_at": bucket_end(at, tenant.limits.window_s)}
    if await _add(connection, tables.window_spending, bucket, {"eflops": eflops}):
        columns = tables.window_spending.c
        gone = (columns.tenant_id == tenant.id) & (columns.ends_at <= at - tenant.limits.window_s)
        await connection.execute(delete(tables.window_spending).where(gone))
    await _add(connection, tables.usage, _day_of(tenant, model, strategy, at), {"eflops": eflops, "requests": requests})


async def take_back(
    connection: AsyncConnection, tenant: Tenant, model: str, strategy: str, eflops: int, at: int, now: int
) -> None:
    """Undoes what was booked of one request at the time `at`; of the window, unless it has left that.

    The caller holds the tenant's lock.
    """
    await _add(connection, tables.usage, _day_of(tenant, model, strategy, at), {"eflops": -eflops, "requests": -1})
    if at <= now - tenant.limits.window_s:
        return
    # It is in the first bucket that ends after `at`; or near to that, where the window's length was changed since, and
    # with it the buckets', or where the clock was set back.
    buckets = await window(connection, tenant, now)
    for bucket in sorted(buckets, key=lambda bucket: (bucket.ends_at <= at, abs(bucket.ends_at - at))):
        taken = min(eflops, bucket.eflops)
        key = {"tenant_id": tenant.id, "ends_at": bucket.ends_at}
        await _add(connection, tables.window_spending, key, {"eflops": -taken})
        eflops -= taken
        if not eflops:
            break


def _day_of(tenant: Tenant, model: str, strategy: str, at: int) -> dict[str, Any]:
    """The key of its row in `usage`."""
    day = datetime.fromtimestamp(at, UTC).date()
    return {"tenant_id": tenant.id, "day": day, "model": model, "strategy": strategy}


async def _add(connection: AsyncConnection, table: Table, key: dict[str, Any], amounts: dict[str, int]) -> bool:
    """Whether this is the first of its key. A row of nothing goes."""
    row = and_(*(table.c[name] == value for name, value in key.items()))
    found = (await connection.execute(select(*(table.c[name] for name in amounts)).where(row))).one_or_none()
    added = found is None and min(amounts.values()) >= 0
    if added:
        await connection.execute(insert(table).values(**key, **amounts))
    elif found is not None:
        sums = {name: max(0, old + new) for (name, new), old in zip(amounts.items(), found, strict=True)}
        change = update(table).where(row).values(**sums) if any(sums.values()) else delete(table).where(row)
        await connection.execute(change)
    return added


async def end_in_time(connection: AsyncConnection, tenant: Tenant, now: int) -> None:
    """Spending that lies in the future, because the clock has been set back, counts from now on: it leaves the window
    a window's length after this. The caller holds the tenant's lock.
    """
    columns = tables.window_spending.c
    last = bucket_end(now, tenant.limits.window_s)
    ahead = (columns.tenant_id == tenant.id) & (columns.ends_at > last)
    amounts = (await connection.execute(select(columns.eflops).where(ahead))).scalars().all()
    if amounts:
        await connection.execute(delete(tables.window_spending).where(ahead))
        bucket = {"tenant_id": tenant.id, "ends_at": last}
        await _add(connection, tables.window_spending, bucket, {"eflops": sum(amounts)})


async def window(connection: AsyncConnection, tenant: Tenant, now: int) -> tuple[Bucket, ...]:
    """The tenant's spending that is still in its rolling window."""
    columns = tables.window_spending.c
    statement = select(columns.ends_at, columns.eflops).where(
        columns.tenant_id == tenant.id, columns.ends_at > now - tenant.limits.window_s
    )
    return tuple(Bucket(*row) for row in await connection.execute(statement))


async def month(connection: AsyncConnection, tenant: Tenant, now: int) -> int:
    """eFLOPs that the tenant has spent in the calendar month of `now`, up to that day."""
    columns = tables.usage.c
    first, last = month_start(now).date(), datetime.fromtimestamp(now, UTC).date()
    statement = select(columns.eflops).where(columns.tenant_id == tenant.id, columns.day.between(first, last))
    return sum((await connection.execute(statement)).scalars())


async def report(
    connection: AsyncConnection, since: date | None, until: date | None, tenant_id: int | None
) -> list[Spending]:
    """Spending from `since` to `until`, both included, by tenant, day, model and strategy."""
    columns = tables.usage.c
    statement = select(
        tables.tenants.c.name, columns.day, columns.model, columns.strategy, columns.requests, columns.eflops
    ).join(tables.tenants)
    if since is not None:
        statement = statement.where(columns.day >= since)
    if until is not None:
        statement = statement.where(columns.day <= until)
    if tenant_id is not None:
        statement = statement.where(columns.tenant_id == tenant_id)
    statement = statement.order_by(tables.tenants.c.name, columns.day, columns.model, columns.strategy)
    return [Spending(*row) for row in await connection.execute(statement)]
