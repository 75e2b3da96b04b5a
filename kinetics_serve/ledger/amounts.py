"""eFLOPs in a database: whole numbers of up to 40 digits, which no 64-bit integer holds."""

from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy import Dialect, Numeric, String
from sqlalchemy.types import TypeDecorator, TypeEngine

DIGITS = 40
"""A request states at most 1e30 eFLOPs: ten billion of those fit."""


class EFlops(TypeDecorator[int]):
    """NUMERIC(40, 0) on PostgreSQL. On SQLite, whose numbers are 64 bits wide, 40 decimal digits as text.

    The text is padded with zeros, so it sorts and compares as the number does. SQLite can't sum it exactly, so sums
    are made in Python, on both databases: the rows behind one are few (see tables.py).
    """

    impl = Numeric(DIGITS, 0)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any] = String(DIGITS) if dialect.name == "sqlite" else Numeric(DIGITS, 0)
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | Decimal | None:
        if value is None:
            return None
        if not 0 <= value < 10**DIGITS:
            raise ValueError(f"an amount must be from 0 to 10^{DIGITS} − 1 eFLOPs, got {value}")
        return f"{value:0{DIGITS}d}" if dialect.name == "sqlite" else Decimal(value)

    def process_result_value(self, value: str | Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


def parse(text: str) -> int:
    """The whole eFLOPs in a text such as `4e13` or `40000000000000`. Raises ValueError."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0 or amount.adjusted() >= DIGITS or amount != int(amount):
        raise ValueError(f"expected whole eFLOPs, such as 4e13, below 1e{DIGITS}; given: {text[:100]!r}")
    return int(amount)
