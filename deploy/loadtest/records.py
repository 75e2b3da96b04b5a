"""One line of JSON for each request: what Locust's clients write, and the report is made of."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.loadtest.bills import Answer, Json, agreement

ANSWERED, REFUSED, FAILED, LEFT = "answered", "refused", "failed", "left"

REFUSALS = ("overloaded", "quota_exceeded")
"""Codes of 429: the server does what it should."""


@dataclass(slots=True)
class Record:
    """began: seconds since 1970. seconds: to the end of the answer. text_s: to its first text. tenant: which of the
    keys asked. Amounts are the bill's; None without one."""

    kind: str
    tenant: int
    began: float
    seconds: float = 0.0
    text_s: float | None = None
    outcome: str = LEFT
    code: str | None = None
    strategy: str | None = None
    budget_eflops: int | None = None
    spent_eflops: int | None = None
    spent_dollars: float | None = None
    samples: int | None = None
    tokens: int | None = None
    agreement: float | None = None

    def ended(self, answer: Answer) -> None:
        """Notes an answer that was read to its end."""
        bill = answer.bill
        self.code, self.text_s = answer.code, answer.text_s
        self.outcome = ANSWERED if answer.code is None else REFUSED if answer.code in REFUSALS else FAILED
        self.strategy = bill.get("strategy")
        self.budget_eflops, self.spent_eflops = bill.get("budget_eflops"), bill.get("spent_eflops")
        self.spent_dollars = bill.get("spent_dollars")
        self.samples, self.tokens = bill.get("samples_started"), bill.get("completion_tokens")
        self.agreement = agreement(bill)

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


def read(path: Path) -> list[Record]:
    return records(path.read_text().splitlines())


def records(lines: Iterable[str]) -> list[Record]:
    return [Record(**_fields(line)) for line in lines]


def _fields(line: str) -> Json:
    return dict(json.loads(line))
