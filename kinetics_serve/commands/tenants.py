"""`kinetics-serve tenants`: who may use the server, and how much of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinetics_serve.commands.ledger import LedgerUrl, run
from kinetics_serve.commands.terminal import fail, output
from kinetics_serve.ledger.errors import LedgerMisuse
from kinetics_serve.ledger.limits import LONGEST_WINDOW_S, MOST_AT_ONCE

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
NO_LIMIT = "none"

tenants = typer.Typer(help="Who may use the server, and how much of it.", no_args_is_help=True)

Amount = Annotated[str | None, typer.Option(metavar="EFLOPS", help='Such as 4e15, or "none" for no limit.')]


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
    from kinetics_serve.ledger.amounts import parse

    if model and len(model) > 1 and "all" in model:
        raise fail('--model takes names of models, or "all" alone')

    async def work(ledger: "Ledger") -> None:
        stated = {
            "window_eflops": _parsed(window_eflops, parse),
            "window_s": _parsed(window, _seconds),
            "month_eflops": _parsed(month_eflops, parse),
            "request_eflops": _parsed(request_eflops, parse),
            "concurrency": _parsed(concurrency, _count),
            "models": ([] if not model else [None] if model == ["all"] else [list(model)]),
        }
        changes = {field: values[0] for field, values in stated.items() if values}
        tenant = await ledger.set_tenant(name, changes)
        output.print(_row(tenant.name, tenant.limits), markup=False, soft_wrap=True)

    run(ledger, work, create=True)


@tenants.command(name="list")
def list_tenants(ledger: LedgerUrl) -> None:
    """Show every tenant and its limits."""
    from kinetics_serve.ledger import tenants

    async def work(ledger: "Ledger") -> None:
        async with ledger.database.read() as connection:
            for tenant in await tenants.everyone(connection):
                output.print(_row(tenant.name, tenant.limits), markup=False, soft_wrap=True)

    run(ledger, work)


def _parsed(text: str | None, parse: Callable[[str], int]) -> list[int | None]:
    """Nothing where the option was left out, else its value."""
    if text is None:
        return []
    return [None if text == NO_LIMIT else parse(text)]


def _seconds(text: str) -> int:
    unit = UNITS.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or not 1 <= int(text[:-1]) * unit <= LONGEST_WINDOW_S:
        raise LedgerMisuse(f"a window is such as 90m, 24h or 30d, up to 366d; given: {text!r}")
    return int(text[:-1]) * unit


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_AT_ONCE:
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
