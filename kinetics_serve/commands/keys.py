"""`kinetics-serve keys`: API keys of tenants."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from kinetics_serve.commands.ledger import LedgerUrl, run
from kinetics_serve.commands.terminal import errors, output

if TYPE_CHECKING:  # so that `--help` loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

keys = typer.Typer(help="API keys of tenants.", no_args_is_help=True)


@keys.command(name="create")
def create_key(
    tenant: str,
    ledger: LedgerUrl,
    name: Annotated[str, typer.Option(help="What the key is for, to tell it from others.")] = "",
) -> None:
    """Make a key for a tenant. It goes to standard output, this once: the ledger keeps its hash only."""

    async def work(ledger: "Ledger") -> str:
        _, secret = await ledger.create_key(tenant, name)
        return secret

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

    async def work(ledger: "Ledger") -> None:
        await ledger.revoke_key(key_id)

    run(ledger, work)


def _time(at: int | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
