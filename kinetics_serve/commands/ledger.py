"""What the administrator's commands share: opening the ledger."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kinetics_serve.commands.settings.sources import SettingsError, in_environment
from kinetics_serve.commands.terminal import fail
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

T = TypeVar("T")


def _stated_elsewhere() -> str:
    """What the environment says of the server's ledger. Exits where it says nothing."""
    try:
        stated = in_environment("ledger")
    except SettingsError as error:
        raise fail(error) from None
    if stated is None:
        raise fail("which ledger? State --ledger, or set KINETICS_LEDGER as for the server")
    return stated


LedgerUrl = Annotated[
    str,
    typer.Option(
        "--ledger",
        default_factory=_stated_elsewhere,
        show_default="what KINETICS_LEDGER says",
        help="The server's ledger: a file name or sqlite:///FILE, or postgresql://USER@HOST/NAME.",
    ),
]


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
