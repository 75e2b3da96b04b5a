"""The ledger as a front-end uses it: each method is one transaction."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kinetics_serve.ledger import accounts, keys, quotas, reservations, settlements, tables, tenants, usage
from kinetics_serve.ledger.accounts import Account
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable
from kinetics_serve.ledger.identity import Identity, place_of
from kinetics_serve.ledger.keys import Key
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.quotas import Standing
from kinetics_serve.ledger.settlement import Settlement
from kinetics_serve.ledger.uninterrupted import uninterrupted
from kinetics_serve.ledger.usage import Spending

logger = logging.getLogger(__name__)

DEFAULT_LEASE_S = 60
"""Seconds after which what a crashed front-end had reserved is released. It is renewed three times in a lease."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every method raises LedgerUnavailable where the database gives no answer, and runs to its end once it has begun.

    clock: seconds since 1970. Front-ends on one ledger need clocks that agree well within `lease_s` seconds.
    """

    database: Database
    lease_s: int = DEFAULT_LEASE_S
    clock: Callable[[], float] = time.time

    @property
    def now(self) -> int:
        return int(self.clock())

    @uninterrupted
    async def identity(self) -> Identity:
        async with self.database.read() as connection:
            id = (await connection.execute(select(tables.identity.c.id))).scalar_one()
        return Identity(id, place_of(self.database.url))

    @uninterrupted
    async def owner(self, key: str) -> Tenant | None:
        """Whose API key it is, if anybody's."""
        async with self.database.read() as connection:
            return await keys.owner(connection, key)

    @uninterrupted
    async def reserve(self, id: str, tenant: Tenant, model: str, strategy: str, eflops: int) -> dict[str, float]:
        """Sets `eflops` aside for a request, for as long as its lease is renewed. id: 32 hexadecimal digits.

        Returns what has been spent of the tenant's quotas, see quotas.used. Window, month and concurrency hold
        together, whoever else reserves at the same time. Raises QuotaExceeded and
        RequestTooLarge.
        """
        async with self.database.write() as connection:
            current = await _locked(connection, tenant.id)
            now = self.now  # after the lock, which may have been waited for
            standing = await reservations.standing(connection, current, now)
            refusal = quotas.refusal(current, standing, eflops, now)
            if refusal is None:
                await reservations.add(connection, id, current, model, strategy, eflops, now, self.lease_s)
        if refusal is not None:
            raise refusal
        return quotas.used(current, standing)

    @uninterrupted
    async def renew(self, id: str, spent: int) -> None:
        """Keeps a running request's reservation, and notes the eFLOPs that it has spent so far."""
        async with self.database.write() as connection:
            await reservations.renew(connection, id, spent, self.now)

    @uninterrupted
    async def settle(self, bills: Sequence[Settlement]) -> list[Settlement]:
        """Books what requests of one tenant have spent and frees the rest of their reservations, each once.

        Returns those whose reservation had expired. Raises LedgerMisuse where the tenant is not in this ledger.
        """
        tenant_id, name = bills[0].tenant_id, bills[0].tenant
        async with self.database.write() as connection:
            current = await tenants.lock(connection, tenant_id)
            if current is None or current.name != name:
                raise LedgerMisuse(f"this ledger has no tenant {name!r} with the id {tenant_id}")
            return await settlements.book(connection, current, bills, self.now)

    @uninterrupted
    async def forget(self) -> None:
        """Forgets single settlements of long ago; what was spent stays."""
        async with self.database.write() as connection:
            await settlements.forget(connection, self.now)

    @uninterrupted
    async def expire(self) -> None:
        """Settles what crashed front-ends left behind, of every tenant whose row nobody holds.

        `reserve` does it for its own.
        """
        async with self.database.read() as connection:
            overdue = await reservations.overdue(connection, self.now)
        for tenant_id in overdue:
            try:
                async with self.database.write() as connection:
                    await reservations.expire(connection, await _locked(connection, tenant_id), self.now)
            except LedgerUnavailable as error:
                logger.warning("reservations of the tenant with the id %d could not be expired: %s", tenant_id, error)

    @uninterrupted
    async def standing(self, tenant: Tenant) -> Standing:
        """What counts against the tenant's quotas now."""
        async with self.database.write() as connection:
            current = await _locked(connection, tenant.id)
            return await reservations.standing(connection, current, self.now)

    @uninterrupted
    async def usage(
        self, since: date | None = None, until: date | None = None, tenant: Tenant | None = None
    ) -> list[Spending]:
        """Spending by tenant, day (UTC, both ends included), model and strategy; of one tenant or of all."""
        await self.expire()
        async with self.database.read() as connection:
            return await usage.report(connection, since, until, tenant.id if tenant is not None else None)

    # ----- what an administrator does -----

    @uninterrupted
    async def accounts(self) -> list[Account]:
        """Every tenant, with what counts against its quotas now and its keys."""
        await self.expire()
        async with self.database.read() as connection:
            return await accounts.everyone(connection, self.now)

    @uninterrupted
    async def tenant(self, name: str) -> Tenant:
        """Raises NotInLedger where there is none of that name."""
        async with self.database.read() as connection:
            return await tenants.by_name(connection, name)

    @uninterrupted
    async def set_tenant(self, name: str, changes: Mapping[str, Any]) -> Tenant:
        """Creates the tenant, or changes those of its limits that `changes` names. Raises LedgerMisuse."""
        try:
            return await self._save(name, changes)
        except IntegrityError:  # somebody else has created it at the same time
            return await self._save(name, changes)

    async def _save(self, name: str, changes: Mapping[str, Any]) -> Tenant:
        async with self.database.write() as connection:
            return await tenants.save(connection, name, changes, self.now)

    @uninterrupted
    async def create_key(self, tenant: str, name: str) -> tuple[Key, str]:
        """A new key of the tenant of that name, and what is known of it. Raises LedgerMisuse and NotInLedger."""
        async with self.database.write() as connection:
            secret = await keys.create(connection, await tenants.by_name(connection, tenant), name, self.now)
            return await keys.details(connection, secret), secret

    @uninterrupted
    async def revoke_key(self, key_id: int) -> Key:
        """From the next request on, the key is refused. Raises NotInLedger where no key in use has this id."""
        async with self.database.write() as connection:
            return await keys.revoke(connection, key_id, self.now)

    async def close(self) -> None:
        await self.database.close()


async def _locked(connection: AsyncConnection, tenant_id: int) -> Tenant:
    tenant = await tenants.lock(connection, tenant_id)
    if tenant is None:
        logger.error("the tenant with the id %d is gone from the ledger", tenant_id)
        raise LedgerUnavailable("the ledger does not know this key's tenant any more")
    return tenant
