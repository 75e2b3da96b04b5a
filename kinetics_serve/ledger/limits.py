"""What a tenant may use, and who it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kinetics_serve.ledger.errors import LedgerMisuse

DAY_S = 86_400

LONGEST_WINDOW_S = 366 * DAY_S
MOST_AT_ONCE = 10**6
LONGEST_NAME = 100
"""Characters in the name of a tenant or of a key."""
LONGEST_MODEL = 500
"""Characters in the name of a model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A tenant's quotas. None is no limit."""

    window_eflops: int | None = None
    """In any `window_s` seconds."""
    window_s: int = DAY_S
    month_eflops: int | None = None
    """In a calendar month, UTC."""
    request_eflops: int | None = None
    """For one request."""
    concurrency: int | None = None
    """Requests that run at the same time."""
    models: tuple[str, ...] | None = None
    """The names of those that the tenant may use."""

    @property
    def priced(self) -> bool:
        """Whether a request must have a price to be admitted."""
        return any(limit is not None for limit in (self.window_eflops, self.month_eflops, self.request_eflops))


@dataclass(frozen=True, slots=True)
class Tenant:
    """cache_salt: keeps the tenant's prompts apart from others' in vLLM's prefix cache. A secret."""

    id: int
    name: str
    limits: Limits
    cache_salt: str = field(repr=False)

    def may_use(self, model: str) -> bool:
        return self.limits.models is None or model in self.limits.models


def check_name(name: str) -> None:
    """Raises LedgerMisuse for what can't be a tenant's name."""
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise LedgerMisuse(f"a tenant's name has 1 to {LONGEST_NAME} printable characters; given: {name[:200]!r}")


def check_limits(changes: Mapping[str, Any]) -> None:
    """Raises LedgerMisuse for what can't be the value of one of `Limits`' fields. eFLOPs: see `amounts`."""
    if "window_s" in changes:
        window_s = changes["window_s"]
        if window_s is None:
            raise LedgerMisuse("a window has a length: to lift its limit, state none for its eFLOPs")
        if not 1 <= window_s <= LONGEST_WINDOW_S:
            raise LedgerMisuse(f"a window has 1 to {LONGEST_WINDOW_S} seconds (366 days); given: {window_s}")
    concurrency = changes.get("concurrency")
    if concurrency is not None and not 1 <= concurrency <= MOST_AT_ONCE:
        raise LedgerMisuse(f"a concurrency is a whole number from 1 to a million, or none; given: {concurrency}")
    for model in changes.get("models") or ():
        if not 1 <= len(model) <= LONGEST_MODEL or not model.isprintable():
            raise LedgerMisuse(f"a model's name has 1 to {LONGEST_MODEL} printable characters; given: {model[:200]!r}")
