"""The report of a load test: tables in the terminal, and the same with plots in one HTML file."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.loadtest.counted import Counted
from deploy.loadtest.figures import draw
from deploy.loadtest.mix import LEFT_STRATEGY
from deploy.loadtest.records import Record
from deploy.loadtest.sums import PERCENTILES, Sums, by, over_time, seconds_of, sums
from kinetics_serve.observability.numbers import dollars_for_people, for_people

PARTS = 24
"""Points of a plot: five seconds each in a test of two minutes."""

Rows = Sequence[Sequence[str]]

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; } svg { width: 100%; height: auto; }
"""


@dataclass(frozen=True, slots=True)
class LoadTest:
    """What was tested. counted: by the server meanwhile; None where it doesn't tell."""

    url: str
    model: str
    users: int
    records: Sequence[Record]
    counted: Counted | None

    @property
    def seconds(self) -> float:
        return seconds_of(self.records)


def show(test: LoadTest, console: Console) -> None:
    for title, rows in tables(test).items():
        table = Table(*rows[0], title=title, title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)


def write(test: LoadTest, folder: Path) -> Path:
    """Writes report.json and report.html, which is returned."""
    whole = sums(test.records)
    found = {"url": test.url, "model": test.model, "users": test.users, "seconds": test.seconds, "all": asdict(whole)}
    found |= {"kinds": {name: asdict(each) for name, each in by(test.records, lambda record: record.kind).items()}}
    found |= {"server": asdict(test.counted) if test.counted is not None else None}
    (folder / "report.json").write_text(json.dumps(found, indent=2) + "\n")
    page = folder / "report.html"
    page.write_text(html(test))
    return page


def tables(test: LoadTest) -> dict[str, Rows]:
    """By title; the first row has the headings."""
    kinds = by(test.records, lambda record: record.kind)
    tenants = by(test.records, lambda record: f"tenant {record.tenant + 1}")
    found = {_title(test): _totals(sums(test.records), test.seconds), "By kind": _groups(kinds)}
    if len(tenants) > 1:
        found["By tenant"] = _groups(tenants)
    if test.counted is not None:
        found["Clients and server"] = _both_sides(test.records, test.counted)
    return found


def html(test: LoadTest) -> str:
    """One file that fetches nothing."""
    parts = []
    for title, rows in tables(test).items():
        parts.append(
            f"<h2>{escape(title)}</h2>\n<table>{_row(rows[0], 'th')}{''.join(_row(row) for row in rows[1:])}</table>"
        )
    figures = draw(over_time(test.records, PARTS)) if test.records else {}
    drawn = [f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in figures.items()]
    parts.insert(1, f"<section>{''.join(drawn)}</section>")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Load test</title>'
    body = "\n".join(["<h1>Load test</h1>", *parts])
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _title(test: LoadTest) -> str:
    return f"{test.users} users for {test.seconds:.0f} s, {test.model} at {test.url}"


def _totals(of: Sums, seconds: float) -> Rows:
    rate = max(seconds, 1e-9)
    spent = f"{for_people(of.eflops)} by {of.billed} bills"
    return [
        ("", "all", "a second"),
        ("answers", str(of.answered), f"{of.answered / rate:.2f}"),
        ("eFLOPs", spent, for_people(of.eflops / rate)),
        ("eFLOPs a bill", _people(of.eflops_an_answer), ""),
        ("money a bill", _dollars(of.dollars_an_answer), ""),
        ("budget used", _percent(of.budget_use), ""),
        ("agreement", _percent(of.agreement), ""),
        ("refused, failed, left", f"{of.refused}, {of.failed}, {of.left}", ""),
    ]


def _groups(groups: dict[str, Sums]) -> Rows:
    percentiles = "/".join(str(each) for each in PERCENTILES)
    counts = ("asked", "answered", "refused", "failed", "left")
    latencies = (f"text s, p{percentiles}", f"whole s, p{percentiles}")
    rows: list[Sequence[str]] = [("", *counts, *latencies, "budget used", "agreement", "eFLOPs a bill", "money a bill")]
    for name, of in groups.items():
        cells = [str(getattr(of, count)) for count in counts] + [_seconds(of.text_s), _seconds(of.seconds)]
        cells += [_percent(of.budget_use), _percent(of.agreement)]
        rows.append((name, *cells, _people(of.eflops_an_answer), _dollars(of.dollars_an_answer)))
    return rows


def _both_sides(records: Sequence[Record], counted: Counted) -> Rows:
    of = sums(records)
    stayed = sums(record for record in records if record.strategy != LEFT_STRATEGY)
    return [
        ("", "clients", "server"),
        ("answers", str(of.answered), str(counted.completed)),
        ("refused", str(of.refused), str(counted.refused)),
        ("eFLOPs", for_people(stayed.eflops), for_people(counted.eflops)),
        ("eFLOPs of clients that may leave", for_people(of.eflops - stayed.eflops), for_people(counted.left_eflops)),
    ]


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _people(number: float | None) -> str:
    return "" if number is None else for_people(number)


def _dollars(amount: float | None) -> str:
    return "no price" if amount is None else dollars_for_people(amount)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _seconds(values: tuple[float, ...] | None) -> str:
    return "" if values is None else " / ".join(f"{value:.2f}" for value in values)
