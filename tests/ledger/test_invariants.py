"""Whatever happens in whatever order, what is spent and what is reserved stay within the quota together."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import QuotaExceeded, RequestTooLarge
from kinetics_serve.ledger.ledger import Ledger
from tests.ledger.conftest import Clock, settle, tenant

LEASE_S = 20
WINDOW_S = 40
UNIT = 10**28


class Requests(RuleBasedStateMachine):
    """One tenant's requests against a model that keeps a list of all spending. Amounts exceed 64 bits."""

    running = Bundle("running")

    @initialize(window=st.integers(1, 50), month=st.integers(1, 200), concurrency=st.integers(1, 5))
    def start(self, window: int, month: int, concurrency: int) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Clock()
        self.ledger = Ledger(Database(f"sqlite:///{self.folder}/ledger.db"), LEASE_S, self.clock)
        self.window, self.month, self.concurrency = window * UNIT, month * UNIT, concurrency
        self.runner.run(self.ledger.database.migrate())
        limits: dict[str, Any] = {"window_eflops": self.window, "month_eflops": self.month, "concurrency": concurrency}
        self.tenant = self.runner.run(tenant(self.ledger, window_s=WINDOW_S, **limits))
        self.spent: list[tuple[float, int]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.next = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.ledger.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    @rule(target=running, units=st.integers(0, 30), more=st.integers(0, 3))
    def reserve(self, units: int, more: int) -> str:
        eflops = units * UNIT + more
        self.next += 1
        id = f"{self.next:032x}"
        self.expire()
        try:
            self.runner.run(self.ledger.reserve(id, self.tenant, "m", "auto", eflops))
        except RequestTooLarge:
            assert eflops > min(self.window, self.month)
        except QuotaExceeded:
            reserved = sum(each["reserved"] for each in self.open.values())
            # Spending leaves the window a bucket late at most, never early.
            late = sum(spent for at, spent in self.spent if at > self.clock.now - WINDOW_S - 1)
            full = len(self.open) >= self.concurrency
            assert full or late + reserved + eflops > self.window or self.total + reserved + eflops > self.month
        else:
            self.open[id] = {"reserved": eflops, "spent": 0, "lease": self.clock.now + LEASE_S}
        return id

    @rule(id=running, part=st.fractions(0, 1))
    def renew(self, id: str, part: Any) -> None:
        self.expire()
        if id in self.open:
            request = self.open[id]
            request["spent"] = max(request["spent"], int(request["reserved"] * part))
            request["lease"] = self.clock.now + LEASE_S
            self.runner.run(self.ledger.renew(id, request["spent"]))

    @rule(id=consumes(running), part=st.fractions(0, 1))
    def settle(self, id: str, part: Any) -> None:
        self.expire()
        request = self.open.pop(id, None)
        if request is not None:
            spent = max(request["spent"], int(request["reserved"] * part))
            self.spent.append((self.clock.now, spent))
            self.runner.run(settle(self.ledger, id, self.tenant, spent))

    @rule(seconds=st.integers(1, LEASE_S + 1) | st.sampled_from([WINDOW_S - 1, WINDOW_S]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def expire(self) -> None:
        """What the ledger does whenever it is asked."""
        self.runner.run(self.ledger.expire())
        for id, request in list(self.open.items()):
            if request["lease"] <= self.clock.now:
                self.spent.append((request["lease"], request["spent"]))
                del self.open[id]

    @property
    def total(self) -> int:
        return sum(spent for _, spent in self.spent)

    @invariant()
    def within_the_quota(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.expire()
        standing = self.runner.run(self.ledger.standing(self.tenant))
        reserved = sum(each["reserved"] for each in self.open.values())
        recent = sum(spent for at, spent in self.spent if at > self.clock.now - WINDOW_S)
        assert standing.reserved == reserved
        assert standing.running == len(self.open) <= self.concurrency
        assert standing.month == self.total
        assert recent <= standing.window_spent
        assert standing.window_spent + reserved <= self.window
        assert self.total + reserved <= self.month


TestRequests = Requests.TestCase
TestRequests.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
