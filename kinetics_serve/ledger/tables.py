"""The ledger's tables. Times are seconds since 1970 (UTC), amounts whole eFLOPs."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from kinetics_serve.ledger.amounts import EFlops

# Names of constraints that are the same on every database, so that later migrations can refer to them.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _tenant_id(primary_key: bool = False) -> "Column[int]":
    return Column("tenant_id", Integer, ForeignKey("tenants.id"), primary_key=primary_key, nullable=False)


# One row, made with the ledger: an outbox remembers whose bills it keeps.
identity = Table("identity", metadata, Column("id", String(32), primary_key=True))

tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("window_eflops", EFlops),
    Column("window_s", Integer, nullable=False),
    Column("month_eflops", EFlops),
    Column("request_eflops", EFlops),
    Column("concurrency", Integer),
    Column("models", JSON(none_as_null=True)),
    Column("cache_salt", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    _tenant_id(),
    Column("name", String(100), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

# What running requests may spend, and what expired ones were charged, which were not settled yet.
reservations = Table(
    "reservations",
    metadata,
    Column("id", String(32), primary_key=True),
    _tenant_id(),
    Column("model", Text, nullable=False),
    Column("strategy", String(40), nullable=False),
    Column("reserved", EFlops, nullable=False),
    Column("spent", EFlops, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    Column("lease_s", Integer, nullable=False, server_default="60"),
    Column("expired_at", BigInteger),
    Index("ix_reservations_tenant_id", "tenant_id"),
    Index("ix_reservations_lease_until", "lease_until"),
)

# What was booked for each request that was settled, be it nothing, kept for some days: so that nothing is booked twice,
# and that `usage` can be checked. The id is the reservation's.
settlements = Table(
    "settlements",
    metadata,
    Column("id", String(32), primary_key=True),
    _tenant_id(),
    Column("model", Text, nullable=False),
    Column("strategy", String(40), nullable=False),
    Column("eflops", EFlops, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_settlements_at", "at"),
)

# A tenant's spending in its rolling window: one row per bucket, some 240 in a window, deleted when they leave it.
window_spending = Table(
    "window_spending",
    metadata,
    _tenant_id(primary_key=True),
    Column("ends_at", BigInteger, primary_key=True),
    Column("eflops", EFlops, nullable=False),
)

# All spending, for reports and for the month's quota: one row per tenant, day, model and strategy.
usage = Table(
    "usage",
    metadata,
    _tenant_id(primary_key=True),
    Column("day", Date, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("strategy", String(40), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("eflops", EFlops, nullable=False),
)
