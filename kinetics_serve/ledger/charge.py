"""One request's money, for as long as it runs."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.settlement import Settlement
from kinetics_serve.ledger.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from kinetics_serve.ledger.delivery import Delivery

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


class Charge:
    """Reserves `eflops` on entry, renews the lease while inside, and settles for `spent()` on exit.

    spent: the eFLOPs spent so far, at any moment. Entering raises QuotaExceeded, RequestTooLarge, LedgerUnavailable.
    Leaving raises nothing, and does not wait for a database that is away: the bill is in the outbox by then.
    """

    def __init__(
        self, delivery: "Delivery", tenant: Tenant, model: str, strategy: str, eflops: int, spent: Callable[[], int]
    ) -> None:
        self._delivery = delivery
        self._ledger = delivery.ledger
        self._tenant = tenant
        self._model = model
        self._strategy = strategy
        self._eflops = eflops
        self._spent = spent
        self._id = uuid.uuid4().hex
        self.quotas_used: dict[str, float] = {}
        """What had been spent of the tenant's quotas when this was reserved, see quotas.used."""

    async def __aenter__(self) -> "Charge":
        await self._delivery.check()
        try:
            kind = (self._tenant, self._model, self._strategy)
            self.quotas_used = await self._ledger.reserve(self._id, *kind, self._eflops)
        except asyncio.CancelledError:  # the reservation was made nevertheless, or refused
            await self._settle(0)
            raise
        self._renewing = asyncio.create_task(self._renew(), name=f"lease-{self._id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    @uninterrupted
    async def _leave(self) -> None:
        """A client that disconnects at this moment has to pay too. A renewal that hangs is not waited for: it would
        change nothing any more."""
        self._renewing.cancel()
        await self._settle(self._spent())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ledger.lease_s / RENEWALS_PER_LEASE)
            try:
                await self._ledger.renew(self._id, self._spent())
            except LedgerUnavailable as error:
                logger.warning("a lease could not be renewed: %s", error)

    @uninterrupted
    async def _settle(self, spent: int) -> None:
        tenant = self._tenant
        kind = (tenant.id, tenant.name, self._model, self._strategy)
        await self._delivery.settle(Settlement(self._id, *kind, self._eflops, spent, self._ledger.now))
