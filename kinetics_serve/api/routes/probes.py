"""What needs no key: health, readiness and metrics, for who runs the server."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kinetics_serve.api.dependencies import AppServices

router = APIRouter()


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
    """Whether a request would find an engine, and a server that does not stop: 200 or 503."""
    is_ready = services.pool.ready and not services.drain.started
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)
