"""What the routes share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.behaviour import ProgramRunner
from kinetics_serve.engine.pool import Pool
from kinetics_serve.observability.metrics import Metrics
from kinetics_serve.planner.calibration import Calibration
from kinetics_serve.requests.admission import Admission, Capacity, Load, Overloaded
from kinetics_serve.requests.deadline import Deadline
from kinetics_serve.requests.drain import Drain
from kinetics_serve.requests.plan_watch import PlanWatch

if TYPE_CHECKING:  # a front-end without a ledger loads no SQL
    from kinetics_serve.ledger.delivery import Delivery
    from kinetics_serve.ledger.ledger import Ledger
    from kinetics_serve.ledger.limits import Tenant

DEFAULT_EFFORTS = {"minimal": 0.5, "low": 1.0, "medium": 4.0, "high": 16.0, "xhigh": 32.0, "max": 64.0}
"""Samples' worth that OpenAI's `reasoning_effort` buys; `none` buys nothing."""

DEFAULT_MAX_BODY_BYTES = 8 << 20
DEFAULT_MAX_HELD_BYTES = 1 << 30
DEFAULT_KEEP_ALIVE_S = 5.0
DEFAULT_BODY_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator sets."""

    efforts: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_EFFORTS))
    """Samples' worth per `reasoning_effort`."""

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    """Of a request."""

    max_held_bytes: int = DEFAULT_MAX_HELD_BYTES
    """Of the bodies of all requests that run or wait."""

    calibration: Calibration | None = None
    """What plans follow."""

    allow_code: bool = False
    """Whether samples' programs may be run, for votes by what they do."""

    verifier_hosts: frozenset[str] = frozenset()
    """`host:port` of the programs that requests may name as their scorer."""

    keep_alive_s: float = DEFAULT_KEEP_ALIVE_S
    """Seconds of silence after which a stream sends a comment; 0: never."""

    capacity: Capacity = field(default_factory=Capacity)
    """What may run at once, and wait."""

    max_deadline_s: float | None = None
    """Seconds after which a request with a budget gets its best answer so far, and another is given up."""

    body_timeout_s: float = DEFAULT_BODY_TIMEOUT_S
    """Seconds in which a request has to arrive."""

    media_hosts: frozenset[str] = frozenset()
    """Hosts that vLLM may fetch media from for a client."""

    ready_needs_ledger: bool = False
    """Whether a server whose ledger does not answer says that it is not ready."""

    admin_api_key: str | None = field(default=None, repr=False)
    """What the ledger's administrator is known by; None where nobody administers it over HTTP."""

    cors_origins: tuple[str, ...] = ()
    """Web pages that may call this server from a browser."""


@dataclass(frozen=True, slots=True)
class Services:
    """What an app has once, for all of its requests."""

    settings: Settings

    pool: Pool
    """The engines."""

    metrics: Metrics

    math_pool: MathPool
    """Decides which answers are equal, in processes of its own."""

    programs: ProgramRunner
    """Runs samples' programs, where the settings allow that."""

    client: aiohttp.ClientSession
    """For servers that are not engines: verifiers."""

    admission: Admission
    drain: Drain

    ledger: "Ledger | None" = None
    """None where everybody may do everything."""

    delivery: "Delivery | None" = None
    """Brings bills to the ledger."""

    plan_watch: PlanWatch | None = None
    """None where there is no calibration."""

    @asynccontextmanager
    async def admitted(self, tenant: "Tenant | None", load: Load, deadline: Deadline) -> AsyncIterator[None]:
        """Inside, a request may run: see `Admission.slot`."""
        async with AsyncExitStack() as stack:
            try:
                slot = self.admission.slot(tenant.name if tenant else "", load, deadline.remaining_s)
                self.metrics.queue_wait.observe(await stack.enter_async_context(slot))
            except Overloaded:
                self.metrics.refused.inc()
                raise
            yield

    def deadline(self, stated_s: float | None = None) -> Deadline:
        """Of a request that arrives now: its own or the server's, whichever is sooner."""
        limits = [limit for limit in (stated_s, self.settings.max_deadline_s) if limit is not None]
        return Deadline(min(limits, default=None))
