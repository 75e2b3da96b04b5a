"""Tenants, keys, reservations, spending"""

import sqlalchemy as sa
from alembic import op

from kinetics_serve.ledger.amounts import EFlops

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("window_eflops", EFlops),
        sa.Column("window_s", sa.Integer, nullable=False),
        sa.Column("month_eflops", EFlops),
        sa.Column("request_eflops", EFlops),
        sa.Column("concurrency", sa.Integer),
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("cache_salt", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
        sa.UniqueConstraint("name", name="uq_tenants_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("tenant_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_api_keys_tenant_id"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("strategy", sa.String(40), nullable=False),
        sa.Column("reserved", EFlops, nullable=False),
        sa.Column("spent", EFlops, nullable=False),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("expired_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_reservations_tenant_id"),
    )
    op.create_index("ix_reservations_tenant_id", "reservations", ["tenant_id"])
    op.create_index("ix_reservations_lease_until", "reservations", ["lease_until"])
    op.create_table(
        "window_spending",
        sa.Column("tenant_id", sa.Integer, nullable=False),
        sa.Column("ends_at", sa.BigInteger, nullable=False),
        sa.Column("eflops", EFlops, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "ends_at", name="pk_window_spending"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_window_spending_tenant_id"),
    )
    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.Integer, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("strategy", sa.String(40), nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("eflops", EFlops, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "day", "model", "strategy", name="pk_usage"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_usage_tenant_id"),
    )


def downgrade() -> None:
    for table in ("usage", "window_spending", "reservations", "api_keys", "tenants"):
        op.drop_table(table)
