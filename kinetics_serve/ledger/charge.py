"""One request's money, for as long as it runs."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.uninterrupted import uninterrupted

if TYPE_CHECKING:
    from kinetics_serve.ledger.ledger import Ledger

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3
SETTLE_ATTEMPTS = 3
SETTLE_PAUSE_S = 1.0


class Charge:
    """Reserves `eflops` on entry, renews the lease while inside, and settles for `spent()` on exit.

    spent: the eFLOPs spent so far, at any moment. Entering raises QuotaExceeded, RequestTooLarge, LedgerUnavailable.
    Leaving raises nothing: where the ledger is gone by then, the lease settles the request with what was last noted.
    """

    def __init__(
        self, ledger: "Ledger", tenant: Tenant, model: str, strategy: str, eflops: int, spent: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._tenant = tenant
        self._model = model
        self._strategy = strategy
        self._eflops = eflops
        self._spent = spent
        self._id = uuid.uuid4().hex

    async def __aenter__(self) -> "Charge":
        try:
            await self._ledger.reserve(self._id, self._tenant, self._model, self._strategy, self._eflops)
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
        """A client that disconnects at this moment has to pay too."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        await self._settle(self._spent())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ledger.lease_s / RENEWALS_PER_LEASE)
            try:
                await self._ledger.renew(self._id, self._spent())
            except LedgerUnavailable as error:
                logger.warning("a lease could not be renewed: %s", error)

    async def _settle(self, spent: int) -> None:
        for attempt in range(SETTLE_ATTEMPTS):
            try:
                return await self._ledger.settle(self._id, self._tenant, spent)
            except LedgerUnavailable as error:
                logger.warning("%d eFLOPs of %r could not be settled: %s", spent, self._tenant.name, error)
                if attempt + 1 < SETTLE_ATTEMPTS:
                    await asyncio.sleep(SETTLE_PAUSE_S)
        logger.error("%d eFLOPs of %r were not settled; its lease will", spent, self._tenant.name)
        return None
