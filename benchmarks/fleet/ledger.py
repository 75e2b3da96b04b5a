"""Books in memory in the place of SQL, and an outbox without a disk. Quotas, charges and delivery are the real ones."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self, cast

from kinetics_serve.ledger import quotas
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import DAY_S, Tenant
from kinetics_serve.ledger.outbox import Outbox
from kinetics_serve.ledger.outbox_file import Pending
from kinetics_serve.ledger.quotas import Bucket, Standing
from kinetics_serve.ledger.settlement import Settlement

COMMIT_S = 0.002
"""What a transaction takes."""


@dataclass(slots=True)
class Book:
    """Of one tenant."""

    spent: int = 0
    requests: int = 0
    window_s: int = DAY_S
    window: deque[Bucket] = field(default_factory=deque)
    reserved: dict[str, int] = field(default_factory=dict)
    reserved_eflops: int = 0

    def standing(self, now: int) -> Standing:
        while self.window and self.window[0].ends_at + self.window_s <= now:
            self.window.popleft()
        return Standing(tuple(self.window), self.spent, self.reserved_eflops, len(self.reserved))

    def book(self, bill: Settlement) -> None:
        self.reserved_eflops -= self.reserved.pop(bill.id, 0)
        self.spent += bill.booked
        self.requests += bool(bill.booked)
        end = quotas.bucket_end(bill.at, self.window_s)
        last = self.window.pop() if self.window and self.window[-1].ends_at >= end else Bucket(end, 0)
        self.window.append(Bucket(last.ends_at, last.eflops + bill.booked))


@dataclass(frozen=True, slots=True)
class MemoryLedger(Ledger):
    """One for all front-ends, as a database is. A month is all that is simulated."""

    books: dict[int, Book] = field(default_factory=lambda: defaultdict(Book))
    """By the tenants' ids."""

    @classmethod
    def by(cls, clock: Callable[[], float]) -> Self:
        return cls(cast(Database, None), clock=clock)

    async def reserve(self, id: str, tenant: Tenant, model: str, strategy: str, eflops: int) -> dict[str, float]:
        await asyncio.sleep(COMMIT_S)
        now, book = self.now, self.books[tenant.id]
        book.window_s = tenant.limits.window_s
        standing = book.standing(now)
        refusal = quotas.refusal(tenant, standing, eflops, now)
        if refusal is not None:
            raise refusal
        book.reserved[id] = eflops
        book.reserved_eflops += eflops
        return quotas.used(tenant, standing)

    async def renew(self, id: str, spent: int) -> None:
        await asyncio.sleep(COMMIT_S)

    async def settle(self, bills: Sequence[Settlement]) -> list[Settlement]:
        await asyncio.sleep(COMMIT_S)
        for bill in bills:
            self.books[bill.tenant_id].book(bill)
        return []

    async def forget(self) -> None:
        pass


class MemoryOutbox(Outbox):
    """Takes every bill, and forgets it when it is booked."""

    def __init__(self) -> None:
        self._bills: dict[str, Settlement] = {}

    async def check(self) -> None:
        pass

    async def put(self, settlement: Settlement) -> None:
        self._bills[settlement.id] = settlement

    async def booked(self, ids: list[str]) -> None:
        for id in ids:
            self._bills.pop(id, None)

    async def waiting(self) -> list[Settlement]:
        return list(self._bills.values())

    async def pending(self) -> Pending:
        return Pending(len(self._bills), 0, 0.0)

    async def close(self) -> None:
        pass
