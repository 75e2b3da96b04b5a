"""What can be asked: the models."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from kinetics_serve.api.dependencies import AppServices, Asker
from kinetics_serve.budgeted.arms import auto_models
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.engine.pool import AUTO_MODEL
from kinetics_serve.ledger.limits import Tenant
from kinetics_serve.requests.access import check_model, may_use
from kinetics_serve.requests.services import Services

AUTO_CARD = {"id": AUTO_MODEL, "object": "model", "created": 0, "owned_by": "kinetics-serve"}

router = APIRouter()


@router.get("/v1/models")
async def models(services: AppServices, tenant: Asker) -> dict[str, Any]:
    """The models that the upstreams serve now."""
    if not services.pool.ready:
        raise EngineUnavailable(services.pool.why_not_ready())
    cards = [model.card.raw for model in services.pool.models() if may_use(tenant, model.name)]
    if _chooses(services, tenant):
        cards.append(AUTO_CARD)
    return {"object": "list", "data": cards}


@router.get("/v1/models/{name:path}")
async def model(
    services: AppServices, tenant: Asker, name: Annotated[str, Path(examples=["SmolLM2-135M-Instruct"])]
) -> dict[str, Any]:
    """One of them."""
    if name == AUTO_MODEL and _chooses(services, tenant):
        return AUTO_CARD
    check_model(tenant, name)
    _, served = services.pool.pick(name)
    return served.card.raw


def _chooses(services: Services, tenant: Tenant | None) -> bool:
    """Whether there is a calibration that chooses among models for this tenant."""
    return bool(auto_models(services.pool, services.settings.calibration, lambda name: may_use(tenant, name)))
