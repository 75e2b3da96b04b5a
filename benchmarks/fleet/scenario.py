"""What is simulated: a fleet, its load, its failures and its deploys."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, sin
from random import Random
from typing import Any

from benchmarks.fleet.front_end import MARK, Recordings
from kinetics_serve.ledger.limits import Limits, Tenant

Json = dict[str, Any]

DAY_S = 86_400.0
HOUR_S = 3600.0

PEAK_HOUR = 15
SWING = 0.5
"""How far the load rises above the day's mean in the peak hour, and falls below it twelve hours later."""

TENANTS = 50
GREEDY = 2
"""The number of the tenant whose quota is a tenth of what it asks for."""

HOT_PROMPTS = 200
HOT_SHARE = 0.2
"""Of all requests, those that ask what many ask."""

MIX: list[tuple[int, Json]] = [
    (6, {"strategy": "self_consistency", "max_samples": 8, "budget": {"samples": 8}}),
    (2, {"strategy": "majority_vote", "max_samples": 4, "budget": {"samples": 4}}),
    (1, {"strategy": "best_of_n", "max_samples": 4, "budget": {"samples": 4}}),
    (1, {"strategy": "single", "budget": {"samples": 1}}),
]
"""What requests ask for, and how many of ten do."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet for some hours of a day."""

    engines: int
    front_ends: int
    samples_per_day: float
    from_hour: float = 0.0
    hours: float = 24.0
    stretch: int = 16
    """How many times as long as recorded samples are, and how much slower an answer is: as a model that reasons."""

    deaths_per_day: float = 1.0
    """Of each engine."""

    repair_s: float = 300.0
    deploy_hour: float | None = None
    """When all engines are restarted, some at a time, and then all front-ends, one after the other."""

    restarted_together: float = 0.05
    """Of all engines."""

    restart_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.engines < 1 or self.front_ends < 1 or self.samples_per_day <= 0 or self.hours <= 0:
            raise ValueError("a fleet has at least one engine, one front-end, some samples a day and some hours")

    @property
    def seconds(self) -> float:
        return self.hours * HOUR_S

    def load(self, second: float) -> float:
        """Of the day's mean, so many seconds after the simulation began."""
        hour = self.from_hour + second / HOUR_S
        return 1 + SWING * sin(2 * pi * (hour - PEAK_HOUR + 6) / 24)


def arrivals(scenario: Scenario, requests_per_s: float, random: Random) -> Iterator[float]:
    """When requests come: a Poisson process whose rate follows the day. requests_per_s: the day's mean."""
    now, most = 0.0, requests_per_s * (1 + SWING)
    while (now := now + random.expovariate(most)) < scenario.seconds:
        if random.random() * (1 + SWING) < scenario.load(now):
            yield now


def tenants(greedy_eflops: int) -> list[Tenant]:
    """greedy_eflops: the daily quota of GREEDY. The others have none."""
    limits = {GREEDY: Limits(window_eflops=greedy_eflops)}
    return [
        Tenant(number, f"tenant-{number}", limits.get(number, Limits()), f"salt-{number}")
        for number in range(1, TENANTS + 1)
    ]


def tenant_number(random: Random) -> int:
    """By Zipf's law: the second asks half as often as the first."""
    weights = [1 / number for number in range(1, TENANTS + 1)]
    return random.choices(range(1, TENANTS + 1), weights)[0]


def request(recordings: Recordings, random: Random) -> Json:
    """What a client asks."""
    number = random.randrange(HOT_PROMPTS) if random.random() < HOT_SHARE else random.randrange(HOT_PROMPTS, 10**9)
    question = recordings.questions[number % len(recordings.questions)]
    (kinetics,) = random.choices([options for _, options in MIX], [weight for weight, _ in MIX])
    return {
        "model": recordings.model,
        "messages": [{"role": "user", "content": f"{question.query}{MARK}{number}"}],
        "max_tokens": recordings.max_tokens,
        "temperature": 0.7,
        "kinetics": kinetics,
    }
