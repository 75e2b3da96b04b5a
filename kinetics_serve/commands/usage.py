"""`kinetics-serve usage`: what was spent."""

import csv
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from kinetics_serve.commands.ledger import LedgerUrl, run
from kinetics_serve.commands.terminal import fail, output
from kinetics_serve.observability.numbers import for_people

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger


def usage(
    ledger: LedgerUrl,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV on standard output.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, UTC.")] = None,
) -> None:
    """Show what was spent, by tenant, day (UTC), model and strategy."""

    if since is not None and until is not None and since > until:
        raise fail(f"--since {since:%Y-%m-%d} is after --until {until:%Y-%m-%d}")

    async def work(ledger: "Ledger") -> list[list[str]]:
        only = await ledger.tenant(tenant) if tenant is not None else None
        rows = await ledger.usage(since.date() if since else None, until.date() if until else None, only)
        return [
            [row.tenant, row.day.isoformat(), row.model, row.strategy, str(row.requests), str(row.eflops)]
            for row in rows
        ]

    rows = run(ledger, work)
    columns = ["tenant", "day", "model", "strategy", "requests", "eflops"]
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *rows])
        return
    table = Table(*columns, "", box=None)
    for row in rows:
        table.add_row(*row, for_people(int(row[-1])))
    output.print(table)
