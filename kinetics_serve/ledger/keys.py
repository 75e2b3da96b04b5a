"""API keys. A key is 256 random bits; what is stored is its SHA-256.

A slow, salted hash protects a password because passwords can be guessed. 256 random bits can't, so a fast hash loses
nothing, and costs no time on every request. The same makes the look-up by hash safe against timing: how long an index
takes depends on the hash, and a client that could steer the hash of its key would have broken SHA-256.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import tables, tenants
from kinetics_serve.ledger.errors import LedgerMisuse, NotInLedger
from kinetics_serve.ledger.limits import LONGEST_NAME, Tenant

PREFIX = "sk-kinetics-"
"""So that scanners for leaked secrets can recognise a key."""

LARGEST_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key once it has been handed out. Times in seconds since 1970."""

    id: int
    tenant: str
    name: str
    created_at: int
    revoked_at: int | None


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()


async def create(connection: AsyncConnection, tenant: Tenant, name: str, now: int) -> str:
    """A new key of the tenant's. This is the only time that it can be seen. Raises LedgerMisuse for such a name."""
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise LedgerMisuse(f"a key's name has up to {LONGEST_NAME} printable characters; given: {name[:200]!r}")
    key = new_key()
    values = {"tenant_id": tenant.id, "name": name, "hash": hashed(key), "created_at": now}
    await connection.execute(insert(tables.api_keys).values(**values))
    return key


async def everything(connection: AsyncConnection) -> list[Key]:
    return [Key(*row) for row in await connection.execute(_known().order_by(tables.api_keys.c.id))]


async def details(connection: AsyncConnection, key: str) -> Key:
    """What is known of a key that there is."""
    return Key(*(await connection.execute(_known().where(tables.api_keys.c.hash == hashed(key)))).one())


async def revoke(connection: AsyncConnection, key_id: int, now: int) -> Key:
    """From the next request on, the key is refused. Raises NotInLedger where no key that is in use has this id."""
    columns = tables.api_keys.c
    statement = update(tables.api_keys).where(columns.id == key_id, columns.revoked_at.is_(None))
    possible = 0 < key_id <= LARGEST_ID  # a larger one is more than the database's numbers hold
    if not possible or (await connection.execute(statement.values(revoked_at=now))).rowcount != 1:
        raise NotInLedger(f"no key that is in use has the id {key_id}: see `kinetics-serve keys list`")
    return Key(*(await connection.execute(_known().where(columns.id == key_id))).one())


def _known() -> Select[Any]:
    """The columns of a Key."""
    columns = tables.api_keys.c
    wanted = (columns.id, tables.tenants.c.name, columns.name, columns.created_at, columns.revoked_at)
    return select(*wanted).join(tables.tenants)


async def owner(connection: AsyncConnection, key: str) -> Tenant | None:
    """Whose key it is; None for one that does not exist or was revoked."""
    columns = tables.api_keys.c
    valid = (columns.hash == hashed(key)) & columns.revoked_at.is_(None)
    row = (await connection.execute(select(tables.tenants).join(tables.api_keys).where(valid))).one_or_none()
    return tenants.from_row(row) if row is not None else None
