"""What a load test comes to: totals, percentiles, and how both went over time. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from deploy.loadtest.records import ANSWERED, FAILED, LEFT, REFUSED, Record

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of some requests. eflops, dollars: of all bills; None where there is none. budget_use: spent over budget of all
    bills together. agreement: mean of those that voted. text_s, seconds: PERCENTILES, of what was answered."""

    asked: int
    answered: int
    refused: int
    failed: int
    left: int
    billed: int
    eflops: int
    dollars: float | None
    budget_use: float | None
    agreement: float | None
    text_s: tuple[float, ...] | None
    seconds: tuple[float, ...] | None

    @property
    def eflops_an_answer(self) -> float | None:
        return self.eflops / self.billed if self.billed else None

    @property
    def dollars_an_answer(self) -> float | None:
        return self.dollars / self.billed if self.dollars is not None else None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the test. middle_s: since its beginning. Rates are a second; what has no value there is None."""

    middle_s: float
    answers: float
    eflops: float
    text_s: tuple[float, ...] | None
    seconds: tuple[float, ...] | None
    budget_use: float | None


def sums(records: Iterable[Record]) -> Sums:
    records = list(records)
    ends = [record.outcome for record in records]
    answered = [record for record in records if record.outcome == ANSWERED]
    bills = [record for record in records if record.spent_eflops is not None]
    return Sums(
        asked=len(records),
        answered=len(answered),
        refused=ends.count(REFUSED),
        failed=ends.count(FAILED),
        left=ends.count(LEFT),
        billed=len(bills),
        eflops=sum(record.spent_eflops or 0 for record in bills),
        dollars=_sum(record.spent_dollars for record in bills),
        budget_use=_use(bills),
        agreement=_mean(record.agreement for record in bills),
        text_s=percentiles(record.text_s for record in answered),
        seconds=percentiles(record.seconds for record in answered),
    )


def by(records: Iterable[Record], key: Callable[[Record], str]) -> dict[str, Sums]:
    """Sums of groups, by name in alphabetical order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: sums(groups[name]) for name in sorted(groups)}


def over_time(records: Sequence[Record], parts: int) -> list[Part]:
    """The test in equal parts, from the first request to the last end; a request counts where it ended."""
    if not records:
        return []
    start = min(record.began for record in records)
    length = max(record.began + record.seconds for record in records) - start
    width = max(length / parts, 1e-9)
    groups: list[list[Record]] = [[] for _ in range(parts)]
    for record in records:
        groups[min(parts - 1, int((record.began + record.seconds - start) / width))].append(record)
    found = []
    for number, group in enumerate(groups):
        of = sums(group)
        rates = (of.answered / width, of.eflops / width)
        found.append(Part((number + 0.5) * width, *rates, of.text_s, of.seconds, of.budget_use))
    return found


def seconds_of(records: Sequence[Record]) -> float:
    """From the first request to the last end."""
    if not records:
        return 0.0
    return max(record.began + record.seconds for record in records) - min(record.began for record in records)


def percentiles(values: Iterable[float | None]) -> tuple[float, ...] | None:
    """PERCENTILES by nearest rank: each is a value that was seen. None where there is none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return tuple(known[max(0, ceil(percentile / 100 * len(known)) - 1)] for percentile in PERCENTILES)


def _use(bills: Sequence[Record]) -> float | None:
    budget = sum(record.budget_eflops or 0 for record in bills)
    return sum(record.spent_eflops or 0 for record in bills) / budget if budget else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
