"""What the calibration knows: every way of spending that was measured."""

from typing import Any

from fastapi import APIRouter

from kinetics_serve.api.dependencies import AppServices, Asker
from kinetics_serve.planner.report import frontier_report
from kinetics_serve.requests.access import may_use
from kinetics_serve.requests.errors import ApiError

router = APIRouter()


@router.get("/v1/kinetics/frontier")
async def frontier(services: AppServices, tenant: Asker) -> dict[str, Any]:
    """Every calibrated way of spending, what it cost and how accurate it was, and whether no cheaper one matches it.

    Only those on models that the key's tenant may use.
    """
    calibration = services.settings.calibration
    if calibration is None:
        raise ApiError(
            404, "not_found", "this server has no calibration: its administrator can start it with --calibration"
        )
    return frontier_report(calibration, lambda model: may_use(tenant, model))
