"""Which requests may run now: a bounded load, a bounded queue, and a fair share of both for every tenant."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, exp

from kinetics_serve import clock
from kinetics_serve.errors import KineticsError

PARTS = 10**6
"""Of the capacity, all of which may be in flight: whole numbers, so that sums are exact."""

RATE_WINDOW_S = 30.0
UNKNOWN_RETRY_AFTER_S = 5
LONGEST_RETRY_AFTER_S = 600


class Overloaded(KineticsError):
    """The queue is full, or the request's deadline passed in it. retry_after_s: when it may fit."""

    status = 429
    code = "overloaded"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.advice = f"; try again in {retry_after_s} s"


@dataclass(frozen=True, slots=True)
class Load:
    """What a request is expected to keep busy."""

    samples: int

    eflops: float | None = None
    """None for a model without a price."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much the engines take."""

    samples: int = 256
    """May be in flight together."""

    eflops: float | None = None
    """May be in flight together; None is no limit."""

    waiting: int = 1024
    """Requests in the queue."""

    def cost(self, load: Load) -> int:
        """PARTS of the capacity, of samples or of eFLOPs, whichever is scarcer; all of it for what asks for more."""
        share = load.samples / self.samples
        if self.eflops is not None and load.eflops is not None:
            share = max(share, load.eflops / self.eflops)
        return max(1, ceil(min(1.0, share) * PARTS))


@dataclass(eq=False, slots=True)
class Ticket:
    """A request's place."""

    tenant: str

    cost: int
    """PARTS of the capacity, 1 to all of it."""

    running: bool = False
    """It was admitted and has not ended."""


@dataclass(eq=False, slots=True)
class _Tenant:
    number: int
    """In the order in which they came."""

    turn: int = 0
    """The virtual time at which its next request is due, that is, what it has been given so far."""

    waiting: deque[Ticket] = field(default_factory=deque)

    listed: bool = False
    """It has an entry among those that are due."""


class FairQueue:
    """Start-time fair queueing (Goyal, Vin, Cheng 1996) of requests by cost, equally among tenants that wait.

    The next request is the first of the tenant that got least. It waits until it fits, and nobody overtakes it then, so
    that large requests are not starved by small ones. What a request costs grows with the logarithm of the tenants that
    wait. Without clock or I/O.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.in_flight = 0
        self.waiting = 0
        self.waiting_cost = 0
        self._now = 0  # virtual: the turn that was served last
        self._tenants: dict[str, _Tenant] = {}
        self._due: list[tuple[int, int, _Tenant]] = []
        """A heap of turn, number and tenant: everyone who waits, once, at its turn or at an earlier one that it had."""

    def offer(self, ticket: Ticket) -> Ticket | None:
        """Queues a request. Returns the one that the queue has no room for: the last of the tenant with the most."""
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self._tenants[ticket.tenant] = _Tenant(len(self._tenants))
        if not tenant.waiting:
            tenant.turn = max(tenant.turn, self._now)  # what it didn't ask for before, it can't claim now
        tenant.waiting.append(ticket)
        self._list(tenant)
        self._count(1, ticket)
        if self.waiting <= self.max_waiting or self._fits(ticket):
            return None
        waiting = [each for _, _, each in self._due]
        surplus = max(waiting, key=lambda each: (len(each.waiting), each is tenant)).waiting.pop()
        self._count(-1, surplus)
        return surplus

    def admit(self) -> list[Ticket]:
        """Takes those out of the queue that run from now on."""
        admitted = []
        while (ticket := self.head) is not None and self.in_flight + ticket.cost <= PARTS:
            tenant = self._tenants[ticket.tenant]
            tenant.waiting.popleft()
            self._count(-1, ticket)
            self._now = max(self._now, tenant.turn)
            tenant.turn += ticket.cost
            self.in_flight += ticket.cost
            ticket.running = True
            admitted.append(ticket)
        return admitted

    def leave(self, ticket: Ticket) -> None:
        """A request that was not admitted doesn't want to be any more."""
        self._tenants[ticket.tenant].waiting.remove(ticket)
        self._count(-1, ticket)

    def finish(self, ticket: Ticket) -> None:
        """A request that was admitted has ended."""
        self.in_flight -= ticket.cost
        ticket.running = False

    @property
    def head(self) -> Ticket | None:
        """The request that is next."""
        while self._due:
            turn, _, tenant = self._due[0]
            if tenant.waiting and turn == tenant.turn:
                return tenant.waiting[0]
            heappop(self._due)  # it waits no more, or got something since
            tenant.listed = False
            if tenant.waiting:
                self._list(tenant)
        return None

    def _list(self, tenant: _Tenant) -> None:
        if not tenant.listed:
            tenant.listed = True
            heappush(self._due, (tenant.turn, tenant.number, tenant))

    def _count(self, requests: int, ticket: Ticket) -> None:
        self.waiting += requests
        self.waiting_cost += requests * ticket.cost

    def _fits(self, ticket: Ticket) -> bool:
        return self.head is ticket and self.in_flight + ticket.cost <= PARTS


class DrainRate:
    """PARTS of the capacity that come free per second while something runs, over the last RATE_WINDOW_S of that."""

    def __init__(self) -> None:
        self._freed = 0.0
        self._seconds = 0.0
        self._last = 0.0

    def advance(self, now: float, busy: bool, freed: int = 0) -> None:
        """busy: something was in flight since the last call. freed: what has come free now."""
        if busy:
            kept = exp((self._last - now) / RATE_WINDOW_S)
            self._freed *= kept
            self._seconds = self._seconds * kept + RATE_WINDOW_S * (1 - kept)
        self._freed += freed
        self._last = now

    def seconds_for(self, cost: int) -> int:
        """Seconds, whole and at least one, in which so much comes free."""
        if not self._freed or not self._seconds:
            return UNKNOWN_RETRY_AFTER_S
        return max(1, min(ceil(cost * self._seconds / self._freed), LONGEST_RETRY_AFTER_S))


class Admission:
    """The queue of an app. on_change: called with the requests that wait and the share of the capacity in flight."""

    def __init__(
        self, capacity: Capacity, on_change: Callable[[int, float], None] = lambda waiting, load: None
    ) -> None:
        self.capacity = capacity
        self._on_change = on_change
        self._queue = FairQueue(capacity.waiting)
        self._rate = DrainRate()
        self._turns: dict[Ticket, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def slot(self, tenant: str, load: Load, within_s: float | None = None) -> AsyncIterator[float]:
        """Inside, the request runs; entered when it may, with the seconds that it waited. Raises Overloaded.

        within_s: how long it can wait. A request that is cancelled meanwhile leaves the queue.
        """
        arrived = clock.now()
        ticket = Ticket(tenant, self.capacity.cost(load))
        turn = self._turns[ticket] = asyncio.get_running_loop().create_future()
        surplus = self._queue.offer(ticket)
        if surplus is not None and not (lost := self._turns.pop(surplus)).done():
            lost.set_exception(self._overloaded("the queue is full", surplus))
        self._admit()
        try:
            async with asyncio.timeout(within_s):
                await turn
        except BaseException as error:
            if ticket.running:  # its turn came while it was given up
                self._free(ticket)
            elif self._turns.pop(ticket, None) is not None:
                self._queue.leave(ticket)
            self._admit()
            if isinstance(error, TimeoutError):
                raise self._overloaded(f"no engine was free within its deadline of {within_s:g} s", ticket) from None
            raise
        try:
            yield clock.now() - arrived
        finally:
            self._free(ticket)
            self._admit()

    def _admit(self) -> None:
        self._rate.advance(clock.now(), busy=self._queue.in_flight > 0)
        for ticket in self._queue.admit():
            turn = self._turns.pop(ticket)
            if not turn.done():
                turn.set_result(None)
        self._on_change(self._queue.waiting, self._queue.in_flight / PARTS)

    def _free(self, ticket: Ticket) -> None:
        self._rate.advance(clock.now(), busy=True, freed=ticket.cost)
        self._queue.finish(ticket)

    def _overloaded(self, reason: str, ticket: Ticket) -> Overloaded:
        ahead = self._queue.in_flight + self._queue.waiting_cost + ticket.cost - PARTS
        message = f"{reason}: {self._queue.waiting} requests wait for the engines"
        return Overloaded(message, self._rate.seconds_for(max(0, ahead)))
