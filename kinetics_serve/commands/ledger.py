"""The administrator's commands: tenants, keys, usage."""

import asyncio
import csv
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from kinetics_serve.commands.terminal import errors, fail, output
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

T = TypeVar("T")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NO_LIMIT = "none"

tenants = typer.Typer(help="Who may use the server, and how much of it.", no_args_is_help=True)
keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)

LedgerUrl = Annotated[
    str,
    typer.Option(
        "--ledger",
        envvar="KINETICS_LEDGER",
        help="The server's ledger: a file name or sqlite:///FILE, or postgresql://USER@HOST/NAME.",
    ),
]
Amount = Annotated[str | None, typer.Option(metavar="EFLOPS", help='Such as 4e15, or "none" for no limit.')]


def run(url: str, work: "Callable[[Ledger], Awaitable[T]]") -> T:
    """Does `work` on the ledger at `url`, whose schema is brought up to date. Exits with a message where it can't."""
    from kinetics_serve.ledger.database import Database
    from kinetics_serve.ledger.ledger import Ledger

    logging.getLogger("alembic").setLevel(logging.WARNING)

    async def main() -> T:
        ledger = Ledger(Database(url))
        try:
            await ledger.database.migrate()
            return await work(ledger)
        finally:
            await ledger.close()

    try:
        return asyncio.run(main())
    except (LedgerMisuse, LedgerUnavailable, ValueError) as error:
        reason = f"{error} ({error.__cause__})" if error.__cause__ is not None else str(error)
        raise fail(reason) from None


async def has_keys(ledger: "Ledger") -> bool:
    from kinetics_serve.ledger import keys

    async with ledger.database.read() as connection:
        return any(key.revoked_at is None for key in await keys.everything(connection))


@tenants.command(name="set")
def set_tenant(
    name: str,
    ledger: LedgerUrl,
    window_eflops: Amount = None,
    window: Annotated[str | None, typer.Option(help="Length of the rolling window, such as 90m, 24h or 30d.")] = None,
    month_eflops: Amount = None,
    request_eflops: Amount = None,
    concurrency: Annotated[str | None, typer.Option(help='Requests at a time, or "none".')] = None,
    model: Annotated[
        list[str] | None, typer.Option(help='A model that it may use; repeat for several, or "all".')
    ] = None,
) -> None:
    """Create a tenant, or change the limits that are named. A new tenant has no limit but those."""
    from kinetics_serve.ledger import tenants
    from kinetics_serve.ledger.amounts import parse

    async def work(ledger: "Ledger") -> None:
        if not name or len(name) > 100 or not name.isprintable():
            raise LedgerMisuse(f"a tenant's name has 1 to 100 printable characters; given: {name!r}")
        stated = {
            "window_eflops": _parsed(window_eflops, parse),
            "window_s": _parsed(window, _seconds),
            "month_eflops": _parsed(month_eflops, parse),
            "request_eflops": _parsed(request_eflops, parse),
            "concurrency": _parsed(concurrency, _count),
            "models": ([] if not model else [None] if model == ["all"] else [list(model)]),
        }
        changes = {field: values[0] for field, values in stated.items() if values}
        if "window_s" in changes and changes["window_s"] is None:
            raise LedgerMisuse("a window has a length: to lift its limit, state --window-eflops none")
        async with ledger.database.write() as connection:
            tenant = await tenants.save(connection, name, changes, ledger.now)
        output.print(_row(tenant.name, tenant.limits), markup=False, soft_wrap=True)

    run(ledger, work)


@tenants.command(name="list")
def list_tenants(ledger: LedgerUrl) -> None:
    """Show every tenant and its limits."""
    from kinetics_serve.ledger import tenants

    async def work(ledger: "Ledger") -> None:
        async with ledger.database.read() as connection:
            for tenant in await tenants.everyone(connection):
                output.print(_row(tenant.name, tenant.limits), markup=False, soft_wrap=True)

    run(ledger, work)


@keys.command(name="create")
def create_key(
    tenant: str,
    ledger: LedgerUrl,
    name: Annotated[str, typer.Option(help="What the key is for, to tell it from others.")] = "",
) -> None:
    """Make a key for a tenant. It goes to standard output, this once: the ledger keeps its hash only."""
    from kinetics_serve.ledger import keys, tenants

    async def work(ledger: "Ledger") -> str:
        if len(name) > 100:
            raise LedgerMisuse("a key's name has up to 100 characters")
        async with ledger.database.write() as connection:
            return await keys.create(connection, await tenants.by_name(connection, tenant), name, ledger.now)

    print(run(ledger, work))
    errors.print("Keep the key: it can't be shown again.")


@keys.command(name="list")
def list_keys(ledger: LedgerUrl) -> None:
    """Show every key's id, tenant and name, never the key."""
    from kinetics_serve.ledger import keys

    async def work(ledger: "Ledger") -> None:
        table = Table("id", "tenant", "name", "created", "revoked", box=None)
        async with ledger.database.read() as connection:
            for key in await keys.everything(connection):
                table.add_row(str(key.id), key.tenant, key.name, _time(key.created_at), _time(key.revoked_at))
        output.print(table)

    run(ledger, work)


@keys.command(name="revoke")
def revoke_key(key_id: Annotated[int, typer.Argument(metavar="ID")], ledger: LedgerUrl) -> None:
    """Refuse a key from the next request on."""
    from kinetics_serve.ledger import keys

    async def work(ledger: "Ledger") -> None:
        async with ledger.database.write() as connection:
            await keys.revoke(connection, key_id, ledger.now)

    run(ledger, work)


def usage(
    ledger: LedgerUrl,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV on standard output.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day, UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, UTC.")] = None,
) -> None:
    """Show what was spent, by tenant, day (UTC), model and strategy."""
    from kinetics_serve.ledger import tenants

    async def work(ledger: "Ledger") -> list[list[str]]:
        only = None
        if tenant is not None:
            async with ledger.database.read() as connection:
                only = await tenants.by_name(connection, tenant)
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
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*row)
    output.print(table)


def _parsed(text: str | None, parse: Callable[[str], int]) -> list[int | None]:
    """Nothing where the option was left out, else its value."""
    if text is None:
        return []
    return [None if text == NO_LIMIT else parse(text)]


def _seconds(text: str) -> int:
    unit = UNITS.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or not 1 <= int(text[:-1]) * unit <= 366 * UNITS["d"]:
        raise LedgerMisuse(f"a window is such as 90m, 24h or 30d, up to 366d; given: {text!r}")
    return int(text[:-1]) * unit


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10**6:
        raise LedgerMisuse(f"a concurrency is a whole number from 1 to a million, or none; given: {text!r}")
    return int(text)


def _row(name: str, limits: Any) -> str:
    def shown(limit: object) -> str:
        return NO_LIMIT if limit is None else str(limit)

    models = "all" if limits.models is None else ",".join(limits.models)
    return (
        f"{name}: window_eflops={shown(limits.window_eflops)} window={limits.window_s}s "
        f"month_eflops={shown(limits.month_eflops)} request_eflops={shown(limits.request_eflops)} "
        f"concurrency={shown(limits.concurrency)} models={models}"
    )


def _time(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
