"""Whether the ledger's books agree: what was booked by day with the single bills and expired reservations behind it."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables
from kinetics_serve.ledger.settlement import KEEP_SETTLED_DAYS

Kind = tuple[int, date, str, str]
"""Tenant's id, day (UTC), model and strategy."""


@dataclass(frozen=True, slots=True)
class Books:
    """What a check has found.

    since: the first day that single bills are known of. settled: how many there are, and their eFLOPs. expired:
    reservations that nobody has settled, and the eFLOPs that were charged for them by their last note. running: those
    of requests that run, and the eFLOPs reserved. differences: what does not agree, in words.
    """

    since: date
    settled: tuple[int, int]
    expired: tuple[int, int]
    running: tuple[int, int]
    differences: tuple[str, ...]


async def check(connection: AsyncConnection, now: int) -> Books:
    """Changes nothing. The connection sees one state of the database."""
    since = _day(now) - timedelta(days=KEEP_SETTLED_DAYS - 1)
    start = int(datetime.combine(since, datetime.min.time(), UTC).timestamp())
    settlements = (await connection.execute(select(tables.settlements).where(tables.settlements.c.at >= start))).all()
    reservations = (await connection.execute(select(tables.reservations))).all()
    names = {row.id: row.name for row in await connection.execute(select(tables.tenants.c.id, tables.tenants.c.name))}
    booked: dict[Kind, int] = {
        (row.tenant_id, row.day, row.model, row.strategy): row.eflops
        for row in await connection.execute(select(tables.usage).where(tables.usage.c.day >= since))
    }
    running = [row for row in reservations if row.expired_at is None]
    expired = [row for row in reservations if row.expired_at is not None]
    bills: dict[Kind, int] = defaultdict(int)
    for row in settlements:
        bills[row.tenant_id, _day(row.at), row.model, row.strategy] += row.eflops
    for row in expired:
        if _day(row.lease_until) >= since:
            bills[row.tenant_id, _day(row.lease_until), row.model, row.strategy] += row.spent
    differences = [
        f"{names.get(tenant, tenant)}, {day}, {model}, {strategy}: {booked.get(kind, 0)} eFLOPs are booked, and the "
        f"bills come to {bills.get(kind, 0)}"
        for kind in sorted(booked.keys() | bills.keys())
        if booked.get(kind, 0) != bills.get(kind, 0)
        for tenant, day, model, strategy in [kind]
    ]
    settled = {row.id for row in settlements}
    differences += [
        f"the reservation {row.id} was settled, and is still there" for row in reservations if row.id in settled
    ]
    differences += [
        f"the reservation {row.id} has spent {row.spent} of {row.reserved} eFLOPs"
        for row in reservations
        if row.spent > row.reserved
    ]
    return Books(
        since,
        (len(settlements), sum(row.eflops for row in settlements)),
        (len(expired), sum(row.spent for row in expired)),
        (len(running), sum(row.reserved for row in running)),
        tuple(differences),
    )


def _day(at: int) -> date:
    return datetime.fromtimestamp(at, UTC).date()
