"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from kinetics_serve.api import errors, generation, information
from kinetics_serve.api.services import Services, Settings
from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Upstream, new_client
from kinetics_serve.metrics import Metrics
from kinetics_serve.runner.math_pool import MathPool


def create_app(
    upstreams: Sequence[str],
    intensity: float,
    architecture: str | None = None,
    settings: Settings | None = None,
    kv: KVPolicy = DENSE,
) -> FastAPI:
    """The front-end to the vLLM servers at the URLs `upstreams`.

    intensity: FLOPs per byte of their hardware. architecture: the folder or Hugging Face name of their model, where
    the servers don't tell. kv: how they attend.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics = Metrics()
        math_pool = MathPool()
        async with new_client() as client:
            pool = Pool(
                [Upstream(url, client) for url in upstreams],
                intensity,
                architecture,
                kv,
                lambda upstream, up: metrics.upstream_up.labels(upstream=upstream.url).set(up),
            )
            app.state.services = Services(settings or Settings(), pool, metrics, math_pool)
            watching = asyncio.create_task(pool.watch())
            try:
                yield
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                math_pool.close()

    app = FastAPI(
        title="Kinetics Serve",
        summary="OpenAI's API with a compute budget.",
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(generation.router)
    app.include_router(information.router)
    errors.install(app)
    return app
