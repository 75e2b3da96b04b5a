"""From the outbox to the database: answered means booked, once, however long the database is away."""

import asyncio
import logging
from collections import defaultdict

from kinetics_serve import clock
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable, OutboxUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.settlement import Settlement
from kinetics_serve.observability.metrics import Metrics

logger = logging.getLogger(__name__)

MOMENT_S = 0.5
"""How long an answer waits for a database that works, so that its client's next request finds its quota free."""

UNSAVED_S = 10.0
"""How long an answer waits for the database where the outbox could not take its bill."""

SWEEP_S = 5.0
"""How often the outbox is searched for bills that other processes left behind."""

RETRY_S = 1.0
FORGET_S = 3600.0
CLOSE_S = 5.0
BATCH = 100
"""Bills that are booked in one transaction."""

MOST_FAILURES = 2
"""Tenants for whom the database fails, after which it is taken to be away: each of them may wait for a time-out."""


class Delivery:
    """Puts bills into the outbox, and books them as long as `run` does."""

    def __init__(self, ledger: Ledger, outbox: Outbox, metrics: Metrics) -> None:
        self.ledger = ledger
        self._outbox = outbox
        self._metrics = metrics
        self._bills: dict[str, Settlement] = {}
        self._unsaved: dict[str, Settlement] = {}  # of those in `_bills`, what is in memory only
        self._saving: set[asyncio.Task[bool]] = set()
        self._booked: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._failing = False
        self._busy_since: float | None = None
        self._swept_at = self._forgot_at = -FORGET_S

    async def check(self) -> None:
        """Raises OutboxUnavailable where a request that begins now might not be billed in the end."""
        try:
            await self._outbox.check()
        except OutboxUnavailable as error:
            logger.error("requests are refused: %s", error.reason)
            raise

    async def settle(self, bill: Settlement) -> None:
        """Returns when the bill is on disk, and in the database too where that works; or in the database alone, where
        the disk takes longer. Raises nothing.
        """
        booked = self._booked[bill.id] = asyncio.get_running_loop().create_future()
        self._bills[bill.id] = bill
        self._wake.set()
        saving = asyncio.create_task(self._put(bill))
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        await asyncio.wait({booked, saving}, return_when=asyncio.FIRST_COMPLETED)
        if not booked.done():
            if not saving.result():
                await asyncio.wait({booked}, timeout=UNSAVED_S)
            elif not self._away:
                await asyncio.wait({booked}, timeout=MOMENT_S)
        self._booked.pop(bill.id, None)

    async def _put(self, bill: Settlement) -> bool:
        """Whether the bill is on disk now."""
        try:
            await self._outbox.put(bill)
        except OutboxUnavailable as error:
            if bill.id in self._bills:  # the database may have it meanwhile
                logger.error("%d eFLOPs of %r are in memory only: %s", bill.booked, bill.tenant, error.reason)
                self._unsaved[bill.id] = bill
            return False
        return True

    @property
    def _away(self) -> bool:
        """The database has failed, or is taking its time."""
        slow = self._busy_since is not None and clock.now() - self._busy_since > MOMENT_S
        return self._failing or slow

    async def run(self) -> None:
        """Books bills as they come, and those that are there: from before a restart, or of a process that died."""
        while True:
            self._wake.clear()
            try:
                await self._work()
            except LedgerUnavailable:  # which has logged why
                if not self._failing:
                    logger.warning("the ledger's database gives no answer: bills wait in the outbox")
                self._failing = True
            except Exception:  # nothing may end this: bills would never be booked again
                logger.exception("bills could not be booked")
                self._failing = True
            else:
                if self._failing:
                    logger.info("the ledger's database is back: all bills are booked")
                self._failing = False
            if self._failing:
                await asyncio.sleep(RETRY_S)
            else:
                await self._woken()

    async def close(self) -> None:
        """Books what is left, where the database works; the rest is for the next start."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._deliver()
        except (TimeoutError, LedgerUnavailable):
            pass
        if self._bills:
            logger.warning("%d bills wait in the outbox for the ledger's database", len(self._bills))
        if self._unsaved:
            logger.error("%d bills are lost: neither outbox nor database could take them", len(self._unsaved))
        if self._saving:
            await asyncio.wait(self._saving)
        await self._outbox.close()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(SWEEP_S):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _work(self) -> None:
        now = clock.now()
        await self._save()
        if now - self._swept_at >= SWEEP_S or self._failing:
            await self._sweep()
            self._swept_at = now
        await self._deliver()
        if now - self._forgot_at >= FORGET_S:
            await self.ledger.forget()
            self._forgot_at = now

    async def _sweep(self) -> None:
        try:
            for bill in await self._outbox.waiting():
                self._bills.setdefault(bill.id, bill)
        except OutboxUnavailable as error:
            logger.error(error.reason)
        await self._show()

    async def _deliver(self) -> None:
        """Books all bills. Raises LedgerUnavailable where that failed for a tenant, whose row somebody may have locked:
        the others' are booked nevertheless, and its own come last the next time.
        """
        while self._bills:
            by_tenant: dict[tuple[int, str], list[Settlement]] = defaultdict(list)
            for bill in self._bills.values():
                by_tenant[bill.tenant_id, bill.tenant].append(bill)
            failures = []
            for bills in by_tenant.values():
                try:
                    for start in range(0, len(bills), BATCH):
                        await self._book(bills[start : start + BATCH])
                except LedgerUnavailable as error:
                    failures.append(error)
                    for bill in bills:
                        if bill.id in self._bills:
                            self._bills[bill.id] = self._bills.pop(bill.id)
                    if len(failures) == MOST_FAILURES:
                        break
            if failures:
                raise failures[0]

    async def _book(self, bills: list[Settlement]) -> None:
        self._busy_since = clock.now()
        try:
            late = await self.ledger.settle(bills)
        except LedgerUnavailable:
            raise
        except Exception as error:
            if len(bills) > 1:  # one of them may be at fault
                for bill in bills:
                    await self._book([bill])
                return
            if not isinstance(error, LedgerMisuse):
                logger.exception("a bill can't be booked")
            return await self._reject(bills[0], str(error))
        finally:
            self._busy_since = None
        for bill in late:
            logger.warning("a request of %r was settled late: %d eFLOPs", bill.tenant, bill.booked)
            self._metrics.settled_late(bill.booked)
        await self._done([bill.id for bill in bills])

    async def _reject(self, bill: Settlement, why: str) -> None:
        logger.error("%d eFLOPs of %r can't be booked, and stay in the outbox: %s", bill.booked, bill.tenant, why)
        self._forget(bill.id)
        try:
            await self._outbox.rejected(bill.id, why)
        except OutboxUnavailable as error:
            logger.error(error.reason)

    async def _done(self, ids: list[str]) -> None:
        for id in ids:
            self._forget(id)
        try:
            await self._outbox.booked(ids)
        except OutboxUnavailable as error:  # they will be booked again, which changes nothing
            logger.error(error.reason)

    def _forget(self, id: str) -> None:
        self._bills.pop(id, None)
        self._unsaved.pop(id, None)
        booked = self._booked.pop(id, None)
        if booked is not None and not booked.done():
            booked.set_result(None)

    async def _save(self) -> None:
        """Another try for bills that the outbox could not take."""
        for bill in list(self._unsaved.values()):
            try:
                await self._outbox.put(bill)
            except OutboxUnavailable:
                return
            self._unsaved.pop(bill.id, None)

    async def _show(self) -> None:
        try:
            pending = await self._outbox.pending()
        except OutboxUnavailable:
            return
        self._metrics.outbox(pending.entries, pending.rejected, pending.oldest_s)
