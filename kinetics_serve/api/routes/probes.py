"""What needs no key: health, readiness and metrics, for who runs the server."""

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kinetics_serve.api.dependencies import AppServices
from kinetics_serve.errors import KineticsError

if TYPE_CHECKING:  # a front-end without a ledger loads no SQL
    from kinetics_serve.ledger.ledger import Ledger

router = APIRouter()

LEDGER_WITHIN_S = 2.0
"""What is slower than this would keep requests waiting too."""


@router.get("/metrics")
async def metrics(services: AppServices) -> Response:
    """Prometheus metrics."""
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/health")
async def health() -> dict[str, str]:
    """The process is alive."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(services: AppServices) -> JSONResponse:
    """Whether a request would find an engine, and a server that does not stop: 200 or 503.

    With --ready-needs-ledger, also a ledger whose database answers.
    """
    is_ready = services.pool.ready and not services.drain.started
    if is_ready and services.settings.ready_needs_ledger and services.ledger is not None:
        is_ready = await _answers(services.ledger)
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def _answers(ledger: "Ledger") -> bool:
    try:
        async with asyncio.timeout(LEDGER_WITHIN_S):
            await ledger.owner("")
    except (KineticsError, TimeoutError):
        return False
    return True
