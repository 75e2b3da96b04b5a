"""All tenants at once: what each may use, has used, and the keys that it has. One query for each table."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import keys, tables, tenants
from kinetics_serve.ledger.keys import Key
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.quotas import Bucket, Standing, month_start


@dataclass(frozen=True, slots=True)
class Account:
    """standing: what counts against the tenant's quotas now. keys: those that were revoked too, the oldest first."""

    tenant: Tenant
    standing: Standing
    keys: tuple[Key, ...]


async def everyone(connection: AsyncConnection, now: int) -> list[Account]:
    """By name. The same as `reservations.standing` says of each of them, once nothing is overdue."""
    running = await _running(connection)
    windows = await _windows(connection, now)
    months = await _months(connection, now)
    held = _by_first((key.tenant, key) for key in await keys.everything(connection))
    return [
        Account(
            tenant,
            Standing(
                window=tuple(windows[tenant.id]),
                month=sum(months[tenant.id]),
                reserved=sum(running[tenant.id]),
                running=len(running[tenant.id]),
            ),
            tuple(held[tenant.name]),
        )
        for tenant in await tenants.everyone(connection)
    ]


async def _running(connection: AsyncConnection) -> dict[int, list[int]]:
    """eFLOPs that each request in flight has reserved."""
    columns = tables.reservations.c
    statement = select(columns.tenant_id, columns.reserved).where(columns.expired_at.is_(None))
    return _by_first(await connection.execute(statement))


async def _windows(connection: AsyncConnection, now: int) -> dict[int, list[Bucket]]:
    """What is still in each tenant's rolling window."""
    columns = tables.window_spending.c
    statement = select(columns.tenant_id, columns.ends_at, columns.eflops).join(tables.tenants)
    rows = await connection.execute(statement.where(columns.ends_at > now - tables.tenants.c.window_s))
    return _by_first((row.tenant_id, Bucket(row.ends_at, row.eflops)) for row in rows)


async def _months(connection: AsyncConnection, now: int) -> dict[int, list[int]]:
    """eFLOPs of the calendar month, up to the day of `now`."""
    columns = tables.usage.c
    first, last = month_start(now).date(), datetime.fromtimestamp(now, UTC).date()
    statement = select(columns.tenant_id, columns.eflops).where(columns.day.between(first, last))
    return _by_first(await connection.execute(statement))


def _by_first(pairs: Iterable[Any]) -> dict[Any, list[Any]]:
    grouped: dict[Any, list[Any]] = defaultdict(list)
    for name, value in pairs:
        grouped[name].append(value)
    return grouped
