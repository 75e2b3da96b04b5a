"""Money promised to running requests: reserved before, noted meanwhile, expired where nobody settles."""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables, usage
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.quotas import Standing
from kinetics_serve.ledger.settlement import DAY_S, KEEP_EXPIRED_DAYS

logger = logging.getLogger(__name__)

_table = tables.reservations
_columns = tables.reservations.c


async def add(
    connection: AsyncConnection, id: str, tenant: Tenant, model: str, strategy: str, eflops: int, now: int, lease_s: int
) -> None:
    """The caller holds the tenant's lock, and has seen that its quotas cover the amount."""
    values = {"id": id, "tenant_id": tenant.id, "model": model, "strategy": strategy, "reserved": eflops, "spent": 0}
    await connection.execute(insert(_table).values(**values, lease_until=now + lease_s, lease_s=lease_s))


async def standing(connection: AsyncConnection, tenant: Tenant, now: int) -> Standing:
    """What counts against the tenant's quotas, once what is overdue has expired. The caller holds the tenant's lock."""
    running = await _running(connection, tenant)
    if any(not now < row.lease_until <= now + row.lease_s for row in running):
        await expire(connection, tenant, now)
        running = await _running(connection, tenant)
    await usage.end_in_time(connection, tenant, now)
    return Standing(
        window=await usage.window(connection, tenant, now),
        month=await usage.month(connection, tenant, now),
        reserved=sum(row.reserved for row in running),
        running=len(running),
    )


async def _running(connection: AsyncConnection, tenant: Tenant) -> Sequence[Any]:
    columns = select(_columns.reserved, _columns.lease_until, _columns.lease_s)
    statement = columns.where(_columns.tenant_id == tenant.id, _columns.expired_at.is_(None))
    return (await connection.execute(statement)).all()


async def renew(connection: AsyncConnection, id: str, spent: int, now: int) -> None:
    """Records what a running request has spent so far, for the case that it is never settled."""
    running = (_columns.id == id) & _columns.expired_at.is_(None)
    await connection.execute(update(_table).where(running).values(spent=spent, lease_until=now + _columns.lease_s))


async def overdue(connection: AsyncConnection, now: int) -> list[int]:
    """Ids of the tenants with reservations whose lease has run out, or lies in the future."""
    ended = (_columns.lease_until <= now) | (_columns.lease_until > now + _columns.lease_s)
    statement = select(_columns.tenant_id).where(_columns.expired_at.is_(None), ended).distinct()
    return list((await connection.execute(statement)).scalars())


async def expire(connection: AsyncConnection, tenant: Tenant, now: int) -> None:
    """Books overdue reservations with what was last known to be spent, at the time when their lease ran out.

    A lease that ends later than one that begins now is from a clock that has been set back: it ends as that one does.
    Forgets reservations that expired long ago. The caller holds the tenant's lock.
    """
    running = (_columns.tenant_id == tenant.id) & _columns.expired_at.is_(None)
    ahead = running & (_columns.lease_until > now + _columns.lease_s)
    await connection.execute(update(_table).where(ahead).values(lease_until=now + _columns.lease_s))
    due = running & (_columns.lease_until <= now)
    # Locked, so that a renewal that comes at the same time is either seen or too late.
    rows = (await connection.execute(select(_table).where(due).with_for_update())).all()
    for row in rows:
        await _expire(connection, tenant, row, now)
    old = (_columns.tenant_id == tenant.id) & (_columns.expired_at <= now - KEEP_EXPIRED_DAYS * DAY_S)
    await connection.execute(delete(_table).where(old))


async def _expire(connection: AsyncConnection, tenant: Tenant, row: Row[Any], now: int) -> None:
    logger.warning("a reservation of %r expired: %d of %d eFLOPs are charged", tenant.name, row.spent, row.reserved)
    if row.spent:
        await usage.book(connection, tenant, row.model, row.strategy, row.spent, 1, row.lease_until)
    await connection.execute(update(_table).where(_columns.id == row.id).values(expired_at=now))
