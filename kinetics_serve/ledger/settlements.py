"""Bills in the database: each is booked once, whatever was booked for its request before."""

import logging
from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables, usage
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.settlement import DAY_S, KEEP_SETTLED_DAYS, Settlement

logger = logging.getLogger(__name__)

_table = tables.settlements
_columns = tables.settlements.c
_reservations = tables.reservations


async def book(
    connection: AsyncConnection, tenant: Tenant, settlements: Sequence[Settlement], now: int
) -> list[Settlement]:
    """Books what the tenant's requests have spent and frees the rest. Settling again changes nothing.

    Returns those that came late: what was booked when their reservation expired has been taken back for them, so the
    bill is what is booked in the end, be it more or less. The caller holds the tenant's lock.
    """
    ids = [settlement.id for settlement in settlements]
    known = set((await connection.execute(select(_columns.id).where(_columns.id.in_(ids)))).scalars())
    locked = select(_reservations).where(_reservations.c.id.in_(ids)).with_for_update()
    reserved = {row.id: row for row in await connection.execute(locked)}
    late = []
    for settlement in settlements:
        if settlement.id in known:
            continue
        known.add(settlement.id)
        row = reserved.get(settlement.id)
        if row is None and _forgotten(settlement, now):
            continue
        if settlement.spent > settlement.reserved:
            logger.error(
                "a request spent %d eFLOPs of %d reserved; the reservation is charged",
                settlement.spent,
                settlement.reserved,
            )
        if row is not None and row.expired_at is not None:
            late.append(settlement)
            if row.spent:
                await usage.take_back(connection, tenant, row.model, row.strategy, row.spent, row.lease_until, now)
        await _book(connection, tenant, settlement, min(settlement.at, now))
    await connection.execute(delete(_reservations).where(_reservations.c.id.in_(ids)))
    return late


async def _book(connection: AsyncConnection, tenant: Tenant, settlement: Settlement, at: int) -> None:
    model, strategy, eflops = settlement.model, settlement.strategy, settlement.booked
    if eflops:
        await usage.book(connection, tenant, model, strategy, eflops, 1, at)
    values = {"id": settlement.id, "tenant_id": tenant.id, "model": model, "strategy": strategy}
    await connection.execute(insert(_table).values(**values, eflops=eflops, at=at))


def _forgotten(settlement: Settlement, now: int) -> bool:
    """Whether a settlement without a reservation is too old to tell whether it was booked: then it was."""
    return settlement.at <= now - KEEP_SETTLED_DAYS * DAY_S


async def forget(connection: AsyncConnection, now: int) -> None:
    """Forgets what was settled long ago: a day more than needed, so that whole days can be checked."""
    old = _columns.at <= now - (KEEP_SETTLED_DAYS + 1) * DAY_S
    await connection.execute(delete(_table).where(old))
