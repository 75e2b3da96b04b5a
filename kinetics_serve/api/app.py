"""The FastAPI application."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.behaviour import ProgramRunner
from kinetics_serve.api.dependencies import authenticated
from kinetics_serve.api.routes import (
    administration,
    completions,
    engine,
    frontier,
    messages,
    models,
    plan,
    playground,
    probes,
    responses,
    usage,
)
from kinetics_serve.api.schemas import openapi
from kinetics_serve.cost import HardwareProfile
from kinetics_serve.engine.client import new_client
from kinetics_serve.engine.pool import Pool
from kinetics_serve.engine.upstream import Patience, Upstream
from kinetics_serve.observability import tracing
from kinetics_serve.observability.log import AccessLog
from kinetics_serve.observability.metrics import Metrics
from kinetics_serve.observability.request_id import RequestIds
from kinetics_serve.requests import errors
from kinetics_serve.requests.admission import Admission
from kinetics_serve.requests.drain import Drain, DrainMiddleware
from kinetics_serve.requests.held_bodies import HeldBodies
from kinetics_serve.requests.plain_http import PlainHttp
from kinetics_serve.requests.plan_watch import PlanWatch
from kinetics_serve.requests.services import Services, Settings

if TYPE_CHECKING:
    from kinetics_serve.ledger.delivery import Delivery
    from kinetics_serve.ledger.ledger import Ledger
    from kinetics_serve.ledger.outbox import Outbox


def create_app(
    upstreams: Sequence[str],
    hardware: HardwareProfile,
    architectures: Mapping[str | None, str] = MappingProxyType({}),
    settings: Settings | None = None,
    kv_budget: int | Literal["auto"] | None = "auto",
    ledger: "Ledger | None" = None,
    outbox: "Outbox | None" = None,
    upstream_api_key: str | None = None,
    patience: Patience | None = None,
    embedded: bool = False,
    kv_element_bytes: int | None = None,
) -> FastAPI:
    """The front-end to the vLLM servers at the URLs `upstreams`.

    hardware: theirs. architectures: folders or Hugging Face names of their models, where
    the servers don't tell. kv_budget: see Pool. ledger: tenants and quotas, closed with the app; without one,
    everybody may do everything. outbox: keeps bills until the ledger has them. upstream_api_key: what the servers
    know us by. patience: how long they may take. embedded: whether we start them. kv_element_bytes: see Pool.
    """

    drain = Drain()
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics = Metrics()
        math_pool, programs = MathPool(), ProgramRunner()
        async with new_client(traces.of_clients) as client:
            pool = Pool(
                [Upstream(url, client, patience, upstream_api_key) for url in upstreams],
                hardware,
                architectures,
                kv_budget,
                lambda upstream, up: metrics.checked(upstream.url, up, upstream.circuit.openings),
                embedded,
                kv_element_bytes,
            )
            admission = Admission(chosen.capacity, metrics.queued)
            delivery = _delivery(ledger, outbox, metrics)
            watch = PlanWatch(chosen.calibration.task, metrics) if chosen.calibration is not None else None
            app.state.services = Services(
                chosen, pool, metrics, math_pool, programs, client, admission, drain, ledger, delivery, watch
            )
            working = [asyncio.create_task(pool.watch())]
            if delivery is not None:
                working.append(asyncio.create_task(delivery.run()))
            try:
                await pool.checked()
                yield
            finally:
                for task in working:
                    task.cancel()
                await asyncio.gather(*working, return_exceptions=True)
                if delivery is not None:
                    await delivery.close()
                math_pool.close()
                programs.close()
                traces.end()
                if ledger is not None:
                    await ledger.close()

    app = FastAPIOffline(  # its pages need nothing from the internet
        title="Kinetics Serve",
        summary="OpenAI's API with a compute budget.",
        docs_url="/docs",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.drain = drain
    app.add_middleware(HeldBodies, max_bytes=chosen.max_held_bytes, max_body_bytes=chosen.max_body_bytes)
    app.add_middleware(DrainMiddleware, drain=drain)
    app.add_middleware(PlainHttp)
    for family in (completions, responses, messages, engine, models, plan, frontier, usage):
        app.include_router(family.router, dependencies=[Depends(authenticated)])
    app.include_router(administration.router)
    app.include_router(probes.router)
    app.include_router(playground.router)
    errors.install(app)
    openapi.install(app)
    traces = tracing.install(app)
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(AccessLog)
    app.add_middleware(RequestIds)  # the last is the outermost
    return app


def _delivery(ledger: "Ledger | None", outbox: "Outbox | None", metrics: Metrics) -> "Delivery | None":
    if ledger is None or outbox is None:
        return None
    from kinetics_serve.ledger.delivery import Delivery

    return Delivery(ledger, outbox, metrics)
