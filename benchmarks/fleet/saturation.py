"""Where a front-end, the ledger and the routing are full: arithmetic on what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

BUSY = 0.7
"""The share of a core, or of a database's transactions, to plan with: above it, queues grow long."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured. CPU in seconds of one core."""

    request_s: float
    """Of a front-end, for a request with a budget, whatever its length, with its HTTP."""

    token_s: float
    """Of a front-end, for each token that it follows."""

    pick_s: Mapping[int, float]
    """To choose among so many engines."""

    check_s: float
    """To check an engine's health once."""

    checks_per_s: float
    """At most, by one front-end."""

    ledger_cpu_s: float
    """Of a front-end, to reserve and settle a request."""

    settlements_per_s: Mapping[str, float]
    """Requests that a ledger reserves and settles in a second, by database."""

    def pick(self, engines: int) -> float:
        """Of the nearest number measured that is no smaller, else of the largest."""
        return self.pick_s[min((each for each in self.pick_s if each >= engines), default=max(self.pick_s))]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a fleet is asked for."""

    engines: int
    requests_per_s: float
    """At the peak."""
    tokens: float
    """Of a request, all samples together."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """Where each part is full."""

    request_cpu_s: float
    """Of a front-end, for one request of this length among so many engines."""

    idle_share: float
    """Of a front-end's core, for checking engines, whatever it is asked."""

    front_end_requests_per_s: float
    """That one front-end process, so one core, answers."""

    front_end_tokens_per_s: float
    """That it follows then."""

    front_ends: int
    """That the demand needs."""

    engines_to_fill_a_core: float
    """Engines whose checks, each once a second, take all of BUSY."""

    ledgers: Mapping[str, int]
    """Databases that the demand needs, by kind."""


def saturation(costs: Costs, demand: Demand) -> Saturation:
    checks = min(demand.engines, costs.checks_per_s) * costs.check_s
    per_request = costs.request_s + costs.token_s * demand.tokens + costs.ledger_cpu_s + costs.pick(demand.engines)
    rate = max(0.0, BUSY - checks) / per_request
    return Saturation(
        request_cpu_s=per_request,
        idle_share=checks,
        front_end_requests_per_s=rate,
        front_end_tokens_per_s=rate * demand.tokens,
        front_ends=ceil(demand.requests_per_s / rate),
        engines_to_fill_a_core=BUSY / costs.check_s,
        ledgers={kind: ceil(demand.requests_per_s / (BUSY * most)) for kind, most in costs.settlements_per_s.items()},
    )


def line(points: Mapping[float, float]) -> tuple[float, float]:
    """Constant and slope of the line through measured points, by least squares. Raises ValueError for fewer than 2."""
    if len(points) < 2:
        raise ValueError(f"a line needs two points, got {len(points)}")
    mean_x, mean_y = sum(points) / len(points), sum(points.values()) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points.items()) / sum((x - mean_x) ** 2 for x in points)
    return mean_y - slope * mean_x, slope
