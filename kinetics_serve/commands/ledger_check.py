"""`kinetics-serve ledger check`: whether all that was answered is booked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinetics_serve.commands.ledger import LedgerUrl, of_the_server, run
from kinetics_serve.commands.terminal import fail, output
from kinetics_serve.ledger.errors import LedgerMisuse, OutboxUnavailable

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.check import Books
    from kinetics_serve.ledger.identity import Identity
    from kinetics_serve.ledger.ledger import Ledger

LATE_S = 60.0
"""A bill that has waited for longer is not on its way any more: the database is away, or no server runs."""

ledger_group = typer.Typer(help="The ledger's books.", no_args_is_help=True)


@ledger_group.callback()
def _of_the_ledger() -> None:
    """The ledger's books."""


@ledger_group.command(name="check")
def check_ledger(
    ledger: LedgerUrl,
    outbox: Annotated[
        Path | None,
        typer.Option(help="This machine's outbox. Default: the server's, by KINETICS_OUTBOX or by the ledger's place."),
    ] = None,
) -> None:
    """Check that what is booked is the sum of the bills, that nothing is left in the outbox, and say what differs.

    The exit status is 1 where something does.
    """
    from kinetics_serve.ledger import check

    async def work(ledger: "Ledger") -> "tuple[Books, Path, Identity]":
        from kinetics_serve.ledger.outbox import default_path

        await ledger.expire()
        async with ledger.database.read() as connection:
            books = await check.check(connection, ledger.now)
        return books, default_path(ledger.database.url), await ledger.identity()

    stated = outbox or of_the_server("outbox")
    books, place, identity = run(ledger, work)
    output.print(f"bills since {books.since}: {books.settled[0]}, of {books.settled[1]} eFLOPs")
    output.print(f"running requests: {books.running[0]}, with {books.running[1]} eFLOPs reserved")
    output.print(f"expired reservations, charged by their last note: {books.expired[0]}, of {books.expired[1]} eFLOPs")
    path = Path(stated) if stated is not None else place
    if stated is not None and not path.exists():
        raise fail(f"there is no outbox at {path}, which --outbox or the server's settings name")
    differences = [*books.differences, *_in_outbox(path, identity)]
    for difference in differences:
        output.print(f"differs: {difference}", markup=False, soft_wrap=True)
    if differences:
        raise fail(f"{len(differences)} things differ in the ledger")
    output.print("all agree" if path.exists() else "the ledger's books agree; no outbox was looked at")


def _in_outbox(path: Path, ledger: "Identity") -> list[str]:
    """What is there that should not be, if there is an outbox."""
    from kinetics_serve.ledger.outbox_file import OutboxFile

    if not path.exists():
        output.print(f"no outbox at {path}", markup=False, soft_wrap=True)
        return []
    file = OutboxFile(path, ledger)
    try:
        pending, rejected = file.pending(), file.rejected()
    except OutboxUnavailable as error:
        raise fail(LedgerMisuse(error.reason)) from None
    finally:
        file.close()
    output.print(f"bills in the outbox {path}: {pending.entries} waiting, {pending.rejected} rejected", soft_wrap=True)
    found = [
        f"the bill {bill.id} of {bill.tenant!r}, {bill.booked} eFLOPs, can't be booked: {why}" for bill, why in rejected
    ]
    if pending.oldest_s > LATE_S:
        found.append(f"{pending.entries} bills wait in the outbox, the oldest for {pending.oldest_s:.0f} s")
    return found
