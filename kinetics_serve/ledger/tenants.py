"""Tenants as rows."""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables
from kinetics_serve.ledger.errors import NotInLedger
from kinetics_serve.ledger.limits import LONGEST_NAME, Limits, Tenant, check_limits, check_name


def from_row(row: Row[Any]) -> Tenant:
    limits = Limits(
        window_eflops=row.window_eflops,
        window_s=row.window_s,
        month_eflops=row.month_eflops,
        request_eflops=row.request_eflops,
        concurrency=row.concurrency,
        models=tuple(row.models) if row.models is not None else None,
    )
    return Tenant(row.id, row.name, limits, row.cache_salt)


async def by_name(connection: AsyncConnection, name: str) -> Tenant:
    """Raises NotInLedger where there is none of that name."""
    row = None
    if name.isprintable():  # else no database need see it: PostgreSQL knows no text with a NUL
        row = (await connection.execute(select(tables.tenants).where(tables.tenants.c.name == name))).one_or_none()
    if row is None:
        shown = name[:LONGEST_NAME]
        raise NotInLedger(f"there is no tenant {shown!r}: create it with `kinetics-serve tenants set {shown}`")
    return from_row(row)


async def everyone(connection: AsyncConnection) -> list[Tenant]:
    rows = await connection.execute(select(tables.tenants).order_by(tables.tenants.c.name))
    return [from_row(row) for row in rows]


async def lock(connection: AsyncConnection, tenant_id: int) -> Tenant | None:
    """The tenant as it is now, if there is one. Nobody else books for it before the transaction ends.

    PostgreSQL locks the row; on SQLite a writing transaction is alone anyway.
    """
    statement = select(tables.tenants).where(tables.tenants.c.id == tenant_id).with_for_update()
    row = (await connection.execute(statement)).one_or_none()
    return from_row(row) if row is not None else None


async def save(connection: AsyncConnection, name: str, changes: Mapping[str, Any], now: int) -> Tenant:
    """Creates the tenant, or changes those of its limits that `changes` names. Raises LedgerMisuse."""
    check_name(name)
    check_limits(changes)
    table = tables.tenants
    exists = (await connection.execute(select(table.c.id).where(table.c.name == name))).scalar_one_or_none()
    if exists is None:
        values = {"window_s": Limits().window_s, **changes}
        salt = secrets.token_urlsafe(32)
        await connection.execute(insert(table).values(name=name, cache_salt=salt, created_at=now, **values))
    elif changes:
        await connection.execute(update(table).where(table.c.id == exists).values(**changes))
    return await by_name(connection, name)
