"""Single settlements, and how long a lease is"""

import uuid
from datetime import UTC, datetime, time

import sqlalchemy as sa
from alembic import op

from kinetics_serve.ledger.amounts import EFlops

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_usage = sa.table(
    "usage",
    *(sa.column(name) for name in ("tenant_id", "model", "strategy")),
    sa.column("day", sa.Date),
    sa.column("eflops", EFlops),
)
_reservations = sa.table(
    "reservations",
    *(sa.column(name) for name in ("tenant_id", "model", "strategy", "lease_until", "expired_at")),
    sa.column("spent", EFlops),
)


def upgrade() -> None:
    # Front-ends of the release before, which may still run, don't state it.
    op.add_column("reservations", sa.Column("lease_s", sa.Integer, nullable=False, server_default="60"))
    settlements = op.create_table(
        "settlements",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("strategy", sa.String(40), nullable=False),
        sa.Column("eflops", EFlops, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_settlements"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_settlements_tenant_id"),
    )
    op.create_index("ix_settlements_at", "settlements", ["at"])
    if rows := _booked_before(op.get_bind()):
        op.bulk_insert(settlements, rows)


def _booked_before(connection: sa.Connection) -> list[dict[str, object]]:
    """All usage so far, as one settlement for each day, tenant, model and strategy: of single ones nothing is known.

    Reservations that have expired speak for themselves.
    """
    expired: dict[tuple[object, ...], int] = {}
    for row in connection.execute(sa.select(_reservations).where(_reservations.c.expired_at.is_not(None))):
        key = (row.tenant_id, datetime.fromtimestamp(row.lease_until, UTC).date(), row.model, row.strategy)
        expired[key] = expired.get(key, 0) + row.spent
    return [
        {
            "id": uuid.uuid4().hex,
            "tenant_id": row.tenant_id,
            "model": row.model,
            "strategy": row.strategy,
            "eflops": max(0, row.eflops - expired.get((row.tenant_id, row.day, row.model, row.strategy), 0)),
            "at": int(datetime.combine(row.day, time(12), UTC).timestamp()),
        }
        for row in connection.execute(sa.select(_usage))
    ]


def downgrade() -> None:
    op.drop_table("settlements")
    op.drop_column("reservations", "lease_s")
