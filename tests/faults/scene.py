"""What faults happen to: an upstream, a ledger, and two front-ends, of which the first has three workers by default."""

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from kinetics_serve.ledger import tables
from kinetics_serve.ledger.database import Database
from kinetics_serve.ledger.errors import LedgerUnavailable
from kinetics_serve.ledger.ledger import Ledger
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.ledger.quotas import Standing
from kinetics_serve.ledger.tenants import by_name
from tests.faults.tally import Tally
from tests.faults.upstream import Upstream, running_upstream
from tests.ledger.conftest import emptied
from tests.ledger.postgres import Postgres
from tests.ledger.server import QUESTION, FrontEnd, bearer, front_end

WORKERS = (3, 1)
LEASE_S = 10
"""Of front-ends: so long that none ends while a busy machine stands still, so short that a row can wait for it."""
QUIET_S = 40.0
"""Within which all is booked and released once a fault is over."""

KINDS: tuple[dict[str, Any], ...] = (
    {
        "kinetics": {
            "budget": {"samples": 3},
            "strategy": "majority_vote",
            "max_samples": 3,
            "answer": {"extractor": "last_line"},
        }
    },
    {"kinetics": {"budget": {"samples": 3}, "strategy": "best_of_n", "max_samples": 3}, "stream": True},
    {},
    {"stream": True, "stream_options": {"include_usage": True}},
)
"""Budgeted, budgeted stream, plain, plain stream: the mix of every fault."""

_numbers = itertools.count()


@dataclass
class Scene:
    folder: Path
    upstream: Upstream
    url: str
    postgres: Postgres | None
    front_ends: list[FrontEnd] = field(default_factory=list)
    outbox: str = "outbox"
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def kind(self) -> str:
        return "SQLite" if self.postgres is None else "PostgreSQL"

    def start(self, workers: int, *options: str) -> FrontEnd:
        """Another front-end with these options, ready when this returns, until the scene ends."""
        return self._stack.enter_context(self._starting("--workers", str(workers), *options))

    @asynccontextmanager
    async def another(self, *options: str) -> AsyncIterator[FrontEnd]:
        """A front-end with these options, ready, until this is left."""
        starting = self._starting(*options)
        server = await asyncio.to_thread(starting.__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)

    def _starting(self, *options: str) -> AbstractContextManager[FrontEnd]:
        log = self.folder / f"log-{next(_numbers)}"
        own = ["--outbox", str(self.folder / "disk" / self.outbox), "--lease-s", str(LEASE_S)]
        # An upstream of faults has the parts of a FakeVllm that are used.
        return front_end(self.upstream, self.url, self.folder, log, *own, *options)  # type: ignore[arg-type]

    async def ready(self, *servers: FrontEnd, within_s: float = QUIET_S) -> float:
        """Seconds until all front-ends, or these, say that they are ready, with each of their workers."""
        began = time.monotonic()
        for server in servers or self.front_ends:
            agreed = 0
            while agreed < 4 * WORKERS[0] and time.monotonic() < began + within_s:
                agreed = agreed + 1 if await asyncio.to_thread(says_ready, server) else 0
                await asyncio.sleep(0 if agreed else 0.1)
        return time.monotonic() - began

    async def tenant(self, fault: str, **limits: Any) -> tuple[str, str]:
        """Name and key of a tenant of the fault's own."""
        name = f"{fault}-{next(_numbers)}"
        return name, await asyncio.to_thread(self.front_ends[0].key, name, **limits)

    async def standing(self, name: str) -> tuple[int, Standing]:
        """What is booked for the tenant, and how it stands."""
        ledger = Ledger(Database(self.url))
        try:
            async with ledger.database.read() as connection:
                tenant: Tenant = await by_name(connection, name)
            booked = sum(row.eflops for row in await ledger.usage(tenant=tenant))
            return booked, await ledger.standing(tenant)
        finally:
            await ledger.close()

    async def noted(self, name: str) -> int:
        """eFLOPs that the tenant's requests had spent by their last notes."""
        ledger = Ledger(Database(self.url))
        try:
            async with ledger.database.read() as connection:
                tenant: Tenant = await by_name(connection, name)
                own = tables.reservations.c.tenant_id == tenant.id
                spent = await connection.execute(select(tables.reservations.c.spent).where(own))
                return sum(row.spent for row in spent)
        finally:
            await ledger.close()

    async def load(
        self,
        tally: Tally,
        key: str,
        count: int,
        during: Callable[[], Awaitable[None]] | None = None,
        servers: list[FrontEnd] | None = None,
        **more: Any,
    ) -> None:
        """So many requests of all kinds at once, over the front-ends in turn, and the fault meanwhile."""
        asked = servers or self.front_ends
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            works = [
                self._ask(client, tally, asked[number % len(asked)], key, QUESTION | KINDS[number % 4] | more)
                for number in range(count)
            ]
            await asyncio.gather(*works, *([during()] if during is not None else []))

    async def _ask(self, client: httpx.AsyncClient, tally: Tally, server: FrontEnd, key: str, body: Any) -> None:
        tally.requests += 1
        began = time.monotonic()
        worst = server.eflops(body["max_tokens"]) * (3 if "kinetics" in body else 1)
        try:
            answer = await client.post(f"{server.url}/v1/chat/completions", json=body, headers=bearer(key))
        except httpx.HTTPError as error:
            tally.slack += worst
            tally.refused.append(f"connection lost: {error!r}")
            return
        finally:
            tally.slowest = max(tally.slowest, time.monotonic() - began)
        tally.failures += answer.status_code == 500
        if answer.status_code != 200:
            tally.refused.append(f"{answer.status_code} {answer.json()['error']['message']}")
            failed = answer.status_code > 500 and answer.json()["error"]["code"] != "ledger_unavailable"
            tally.slack += worst * failed  # it may have run, and what was generated costs
            return
        documents = documents_of(answer)
        bill = bill_of(server, documents)
        if bill is None:
            tally.slack += worst
            tally.refused.append(f"200, without a bill: {documents[-1:]}")
        else:
            tally.answered += 1
            tally.bills += bill

    async def until_running(self, name: str, requests: int) -> None:
        """Returns when so many requests of the tenant run, or, on a machine that is too slow, when some have ended."""
        most = 0
        for _ in range(600):
            running = (await self.standing(name))[1].running
            if running >= requests or running < most:
                return
            most = running
            await asyncio.sleep(0.1)

    async def settled(self, tally: Tally, name: str, quiet_s: float = QUIET_S) -> Tally:
        """Judges when nothing changes any more, or when that takes too long."""
        deadline = time.monotonic() + quiet_s
        while True:
            try:
                tally.booked, standing = await self.standing(name)
                tally.reserved = standing.reserved
            except LedgerUnavailable:
                tally.reserved = -1
            tally.orphans = self.upstream.open
            exact = tally.bills <= tally.booked <= tally.bills + tally.slack
            if (exact and tally.reserved == 0 and tally.orphans == 0) or time.monotonic() > deadline:
                return tally.close()
            await asyncio.sleep(0.5)


def says_ready(server: FrontEnd) -> bool:
    """By one of its workers, whichever takes the connection."""
    try:
        return httpx.get(f"{server.url}/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def documents_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON documents of an answer or of a stream's events."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [answer.json()]
    lines = [line[5:].strip() for line in answer.text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def bill_of(server: FrontEnd, documents: list[dict[str, Any]]) -> int | None:
    """What an answer says that it cost; None where it ended with an error, or doesn't say."""
    if any("error" in document for document in documents):
        return None
    bills = [document["kinetics"] for document in documents if "spent_eflops" in (document.get("kinetics") or {})]
    if bills:
        return int(bills[-1]["spent_eflops"])
    usages = [document["usage"] for document in documents if isinstance(document.get("usage"), dict)]
    tokens = usages[-1].get("completion_tokens") if usages else None
    return server.eflops(tokens) if isinstance(tokens, int) and tokens >= 0 else None


@asynccontextmanager
async def scene(kind: str, workers: Sequence[int] = WORKERS, *options: str) -> AsyncIterator[Scene]:
    """On `sqlite` or `postgresql`. The ledger's file, if it has one, and the outbox are on a small disk of their own,
    where one can be mounted. workers: of each front-end. options: of all of them."""
    folder = Path(tempfile.mkdtemp(prefix="kinetics-faults-"))
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    postgres = None
    try:
        if kind == "postgresql":
            (folder / "postgres").mkdir()
            folder.chmod(0o755)
            postgres = Postgres(folder / "postgres")
            await emptied(postgres.url)
        url = postgres.url if postgres is not None else f"sqlite:///{disk}/ledger.db"
        with running_upstream(folder) as upstream:
            made = Scene(folder, upstream, url, postgres)
            async with made._stack:
                for count in workers:
                    made.front_ends.append(await asyncio.to_thread(made.start, count, *options))
                yield made
    finally:
        if postgres is not None:
            postgres.freeze(False)
            postgres.stop()
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
