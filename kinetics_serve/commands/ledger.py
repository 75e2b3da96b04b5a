"""What the administrator's commands share: opening the ledger."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from kinetics_serve.commands.settings.sources import SettingsError, stated_elsewhere
from kinetics_serve.commands.terminal import fail
from kinetics_serve.ledger.errors import LedgerMisuse, LedgerUnavailable

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

T = TypeVar("T")


def of_the_server(name: str) -> str | None:
    """What the environment, `.env` or the file that they name says of an option of the server. Exits on a mistake."""
    try:
        return stated_elsewhere(name)
    except SettingsError as error:
        raise fail(error) from None


def _stated_ledger() -> str:
    stated = of_the_server("ledger")
    if stated is None:
        raise fail("which ledger? State --ledger, or set KINETICS_LEDGER as for the server")
    return stated


LedgerUrl = Annotated[
    str,
    typer.Option(
        "--ledger",
        default_factory=_stated_ledger,
        show_default="what KINETICS_LEDGER says",
        help="The server's ledger: a file name or sqlite:///FILE, or postgresql://USER@HOST/NAME.",
    ),
]


def run(url: str, work: "Callable[[Ledger], Awaitable[T]]", create: bool = False) -> T:
    """Does `work` on the ledger at `url`, whose schema is brought up to date. Exits with a message where it can't, and
    where there is none, unless it may `create` one.
    """
    from kinetics_serve.ledger.database import Database
    from kinetics_serve.ledger.ledger import Ledger

    logging.getLogger("alembic").setLevel(logging.WARNING)

    async def main() -> T:
        ledger = Ledger(Database(url))
        try:
            await ledger.database.migrate(create)
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
