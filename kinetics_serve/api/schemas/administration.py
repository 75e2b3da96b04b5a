"""What an administrator sends, which is checked by these, and is answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from kinetics_serve.api.schemas.answers import TenantLimits, UsageRow
from kinetics_serve.api.schemas.document import MODEL, Open, field
from kinetics_serve.ledger.limits import DAY_S, LONGEST_MODEL, LONGEST_NAME, LONGEST_WINDOW_S, MOST_AT_ONCE

_LIMIT_EFLOPS = 4 * 10**15


def _whole(stated: object) -> object:
    """As the command line reads it: 4e15 and "4e15" are whole numbers, and all of their digits count."""
    from kinetics_serve.ledger.amounts import parse  # whose module loads SQL

    if isinstance(stated, bool) or not isinstance(stated, str | int | float):
        return stated
    try:
        return parse(str(stated))
    except ValueError:
        raise PydanticCustomError("eflops", "expected whole eFLOPs, such as 4e15, below 1e40") from None


Amount = Annotated[int, BeforeValidator(_whole), Field(strict=True)]
"""eFLOPs."""


class TenantChange(BaseModel):
    """A tenant and those of its limits that change. null lifts one. A new tenant has no limit but those stated."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=LONGEST_NAME, examples=["acme"], description="Printable characters.")
    window_eflops: Amount | None = field(_LIMIT_EFLOPS, 'In any window_s seconds. Texts such as "4e15" are read too.')
    window_s: int = Field(DAY_S, ge=1, le=LONGEST_WINDOW_S, strict=True, examples=[DAY_S])
    month_eflops: Amount | None = field(10**17, "In a calendar month, UTC.")
    request_eflops: Amount | None = field(2 * 10**14, "For one request.")
    concurrency: int | None = field(8, "Requests that run at the same time.", ge=1, le=MOST_AT_ONCE, strict=True)
    models: list[Annotated[str, Field(min_length=1, max_length=LONGEST_MODEL)]] | None = field(
        [MODEL], "Those that it may use; null for all."
    )

    def changes(self) -> dict[str, Any]:
        """The limits that are stated, by the fields of `Limits`."""
        return self.model_dump(exclude={"name"}, exclude_unset=True)


class KeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: str = Field(min_length=1, max_length=LONGEST_NAME, examples=["acme"])
    name: str = Field("", max_length=LONGEST_NAME, examples=["production"], description="What it is for.")


class ApiKey(Open):
    """What is known of a key once it has been handed out. Times in seconds since 1970."""

    id: int = Field(examples=[7])
    tenant: str = Field(examples=["acme"])
    name: str = Field(examples=["production"])
    created_at: int = Field(examples=[1767268800])
    revoked_at: int | None = Field(examples=[None, 1767272400], description="Null for one that is in use.")


class NewApiKey(ApiKey):
    """The only answer that has the key itself: the ledger keeps its hash alone."""

    key: str = Field(examples=["sk-kinetics-…"])


class TenantAnswer(Open):
    name: str = Field(examples=["acme"])
    limits: TenantLimits


class Account(TenantAnswer):
    """A tenant, what counts against its limits now, and its keys."""

    window_spent_eflops: int = Field(examples=[9876543210])
    month_spent_eflops: int = Field(examples=[9876543210])
    reserved_eflops: int = Field(examples=[1234567890])
    running_requests: int = Field(examples=[1])
    keys: list[ApiKey]


class AccountsAnswer(Open):
    """Every tenant, by name."""

    object: Literal["list"]
    dollars_per_eflop: float | None = Field(
        examples=[3.7e-19],
        description="With --price-per-gpu-hour, where all models that are served now have the same price.",
    )
    data: list[Account]


class Spent(UsageRow):
    tenant: str = Field(examples=["acme"])
    dollars: float | None = Field(
        examples=[0.0041], description="With --price-per-gpu-hour, of a model that is served now."
    )


class SpendingAnswer(Open):
    """What all tenants spent, or one of them."""

    object: Literal["list"]
    data: list[Spent]
