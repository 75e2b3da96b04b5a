"""What a fault came to: one line of the table."""

from collections.abc import Iterable
from dataclasses import dataclass, field

HEADINGS = (
    "fault",
    "ledger",
    "requests",
    "answered",
    "bills",
    "booked",
    "reserved",
    "over quota",
    "orphans",
    "500s",
    "",
)


@dataclass
class Tally:
    """bills, booked, reserved: eFLOPs; reserved is what is left afterwards. answered: with 200, to the end.

    slack: eFLOPs that may be booked beyond the bills, for requests that ran and whose answer nobody got. over_quota:
    how often more than the quota was spent and reserved. orphans: requests that the upstream was left with.
    slowest: seconds that a request took. refused: what was answered instead of 200, or how a connection ended.
    """

    fault: str
    ledger: str
    requests: int = 0
    answered: int = 0
    bills: int = 0
    booked: int = 0
    reserved: int = 0
    over_quota: int = 0
    orphans: int = 0
    failures: int = 0
    slack: int = 0
    slowest: float = 0.0
    refused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def add(self, other: "Tally") -> None:
        """Takes in further requests."""
        for name in ("requests", "answered", "bills", "slack", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refused += other.refused

    def close(self) -> "Tally":
        """Judges what holds after every fault."""
        least, most = self.bills, self.bills + self.slack
        self.expect(least <= self.booked <= most, "booked is not the bills")
        self.expect(self.reserved == 0, "something is reserved still")
        self.expect(self.over_quota == 0, "over quota")
        self.expect(self.orphans == 0, "the upstream works for nobody")
        self.expect(self.failures == 0, "500s")
        return self

    @property
    def cells(self) -> tuple[str, ...]:
        numbers = (self.requests, self.answered, f"{self.bills:.6g}", f"{self.booked:.6g}", self.reserved)
        rest = (self.over_quota, self.orphans, self.failures, "; ".join(self.wrong) or "right")
        return (self.fault, self.ledger, *map(str, numbers + rest))


def table(tallies: Iterable[Tally]) -> str:
    rows = [HEADINGS, *(tally.cells for tally in tallies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
