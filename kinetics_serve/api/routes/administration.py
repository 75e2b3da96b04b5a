"""What the ledger's administrator does: tenants, keys, quotas and spend. Every change is logged, and no key ever."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ValidationError

from kinetics_serve.api.dependencies import Administered, AppServices, client_of
from kinetics_serve.api.schemas.administration import KeyRequest, TenantChange
from kinetics_serve.ledger.errors import LedgerMisuse, NotInLedger
from kinetics_serve.requests import body as request_body
from kinetics_serve.requests.errors import ApiError, from_validation, invalid
from kinetics_serve.requests.services import Services

if TYPE_CHECKING:  # a front-end without a ledger loads no SQL
    from kinetics_serve.ledger.accounts import Account

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/kinetics/admin")

Model = TypeVar("Model", bound=BaseModel)
Json = dict[str, Any]


@router.get("/tenants")
async def accounts(services: AppServices, ledger: Administered) -> Json:
    """Every tenant: its limits, what counts against them now, and its keys, of which the ledger keeps the hash only."""
    rates = set(_dollars_per_eflop(services).values())
    return {
        "object": "list",
        "dollars_per_eflop": rates.pop() if len(rates) == 1 else None,
        "data": [_described(account) for account in await ledger.accounts()],
    }


@router.post("/tenants")
async def set_tenant(request: Request, services: AppServices, ledger: Administered) -> Json:
    """Creates a tenant, or changes those of its limits that are stated; null lifts one."""
    change = await _read(request, services, TenantChange)
    with _explained("name"):
        tenant = await ledger.set_tenant(change.name, change.changes())
    _log(request, "set_tenant", tenant=tenant.name, **change.changes())
    return {"name": tenant.name, "limits": asdict(tenant.limits)}


@router.post("/keys")
async def create_key(request: Request, services: AppServices, ledger: Administered) -> Json:
    """Makes a key for a tenant. This answer has it, and nothing else ever will."""
    wanted = await _read(request, services, KeyRequest)
    with _explained("tenant"):
        key, secret = await ledger.create_key(wanted.tenant, wanted.name)
    _log(request, "create_key", tenant=key.tenant, id=key.id, name=key.name)
    return asdict(key) | {"key": secret}


@router.delete("/keys/{id}")
async def revoke_key(request: Request, ledger: Administered, id: Annotated[int, Path(examples=[7])]) -> Json:
    """Revokes a key: it is refused from the next request on."""
    with _explained("id"):
        key = await ledger.revoke_key(id)
    _log(request, "revoke_key", tenant=key.tenant, id=key.id, name=key.name)
    return asdict(key)


@router.get("/usage")
async def spending(
    services: AppServices,
    ledger: Administered,
    tenant: Annotated[str | None, Query(description="Only this one's. Default: all.", examples=["acme"])] = None,
    since: Annotated[
        date | None, Query(description="The first day, UTC. Default: the first there is.", examples=["2026-01-01"])
    ] = None,
    until: Annotated[
        date | None, Query(description="The last day, UTC. Default: today.", examples=["2026-01-31"])
    ] = None,
) -> Json:
    """What tenants have spent, by tenant, day, model and strategy."""
    with _explained("tenant"):
        only = await ledger.tenant(tenant) if tenant is not None else None
    prices = _dollars_per_eflop(services)
    rows = [asdict(row) for row in await ledger.usage(since, until, only)]
    for row in rows:
        price = prices.get(row["model"])
        row["dollars"] = None if price is None else row["eflops"] * price
    return {"object": "list", "data": rows}


async def _read(request: Request, services: Services, model: type[Model]) -> Model:
    """The body. Raises ApiError 400 with what was given and what is allowed."""
    _, body = await request_body.read_json(request, services.settings)
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise from_validation(error) from None


@contextmanager
def _explained(param: str) -> Iterator[None]:
    """What the ledger refuses, as the request's fault."""
    try:
        yield
    except NotInLedger as error:
        raise ApiError(404, "not_found", str(error), param) from None
    except LedgerMisuse as error:
        raise invalid(str(error)) from None


def _described(account: "Account") -> Json:
    standing = account.standing
    return {
        "name": account.tenant.name,
        "limits": asdict(account.tenant.limits),
        "window_spent_eflops": standing.window_spent,
        "month_spent_eflops": standing.month,
        "reserved_eflops": standing.reserved,
        "running_requests": standing.running,
        "keys": [asdict(key) for key in account.keys],
    }


def _dollars_per_eflop(services: Services) -> dict[str, float]:
    """By the models that are served now, where somebody said what an hour of their hardware costs."""
    priced = [(model.name, model.price) for model in services.pool.models() if model.price is not None]
    return {name: price.dollars_per_eflop for name, price in priced if price.dollars_per_eflop is not None}


def _log(request: Request, action: str, **what: object) -> None:
    who = client_of(request)
    fields = {"administrator": who, "action": action, **what}
    logger.info("the administrator at %s: %s %r", who, action, what, extra={"fields": fields})
