"""Which ledger it is, however it is reached: URLs are spelled in several ways, and databases move."""

from pathlib import Path
from typing import NamedTuple

from sqlalchemy.engine import URL


class Identity(NamedTuple):
    """id: what the ledger itself says, made with it. place: for people, see place_of."""

    id: str
    place: str

    def __str__(self) -> str:
        return f"the ledger {self.id[:8]} at {self.place}"


def place_of(ledger: URL) -> str:
    """Where it is, without user and password."""
    if ledger.get_backend_name() == "sqlite":
        return str(Path(ledger.database or "").absolute())
    host, port = (ledger.query.get(name, stated) for name, stated in (("host", ledger.host), ("port", ledger.port)))
    return f"{host}:{port or 5432}/{ledger.database}"
