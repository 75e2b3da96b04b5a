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
    day = datetime.fromtimestamp(at, UTC).date()
    bucket = {"tenant_id": tenant.id, "ends_at": bucket_end(at, tenant.limits.window_s)}
    kind = {"tenant_id": tenant.id, "day": day, "model": model, "strategy": strategy}
    if await _add(connection, tables.window_spending, bucket, {"eflops": eflops}):
        columns = tables.window_spending.c
        gone = (columns.tenant_id == tenant.id) & (columns.ends_at <= at - tenant.limits.window_s)
        await connection.execute(delete(tables.window_spending).where(gone))
    await _add(connection, tables.usage, kind, {"eflops": eflops, "requests": requests})


async def _add(connection: AsyncConnection, table: Table, key: dict[str, Any], amounts: dict[str, int]) -> bool:
    """Whether this is the first of its key."""
    row = and_(*(table.c[name] == value for name, value in key.items()))
    found = (await connection.execute(select(*(table.c[name] for name in amounts)).where(row))).one_or_none()
    if found is None:
        await connection.execute(insert(table).values(**key, **amounts))
    else:
        sums = {name: old + new for (name, new), old in zip(amounts.items(), found, strict=True)}
        await connection.execute(update(table).where(row).values(**sums))
    return found is None


async def window(connection: AsyncConnection, tenant: Tenant, now: int) -> tuple[Bucket, ...]:
    """The tenant's spending that is still in its rolling window."""
    columns = tables.window_spending.c
    statement = select(columns.ends_at, columns.eflops).where(
        columns.tenant_id == tenant.id, columns.ends_at > now - tenant.limits.window_s
    )
    return tuple(Bucket(*row) for row in await connection.execute(statement))


async def month(connection: AsyncConnection, tenant: Tenant, now: int) -> int:
    """eFLOPs that the tenant has spent in the calendar month of `now`."""
    columns = tables.usage.c
    first = month_start(now).date()
    statement = select(columns.eflops).where(columns.tenant_id == tenant.id, columns.day >= first)
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
