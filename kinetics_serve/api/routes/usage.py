"""What a tenant has spent."""

from dataclasses import asdict
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query

from kinetics_serve.api.dependencies import AppServices, Asker
from kinetics_serve.requests.errors import ApiError

router = APIRouter()


@router.get("/v1/kinetics/usage")
async def usage(
    services: AppServices,
    tenant: Asker,
    since: Annotated[
        date | None, Query(description="The first day, UTC. Default: the first there is.", examples=["2026-01-01"])
    ] = None,
    until: Annotated[
        date | None, Query(description="The last day, UTC. Default: today.", examples=["2026-01-31"])
    ] = None,
) -> dict[str, Any]:
    """The tenant's own spending by day, model and strategy, its limits, and what counts against them now."""
    ledger = services.ledger
    if ledger is None or tenant is None:
        raise ApiError(404, "not_found", "this server keeps no ledger: its administrator can start it with --ledger")
    standing = await ledger.standing(tenant)
    rows = await ledger.usage(since, until, tenant)
    return {
        "object": "list",
        "tenant": tenant.name,
        "limits": asdict(tenant.limits),
        "window_spent_eflops": standing.window_spent,
        "month_spent_eflops": standing.month,
        "reserved_eflops": standing.reserved,
        "running_requests": standing.running,
        "data": [{key: value for key, value in asdict(row).items() if key != "tenant"} for row in rows],
    }
