"""OpenTelemetry traces, where an administrator asks for them: the requests, and what they ask of vLLM."""

import logging
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
from fastapi import FastAPI

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

SWITCH = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVICE = "OTEL_SERVICE_NAME"


def _nothing() -> None: ...


class Tracing(NamedTuple):
    """OpenTelemetry, where the environment asks for it."""

    of_clients: tuple[aiohttp.TraceConfig, ...] = ()
    """For the connections whose requests should be traced."""
    end: Callable[[], None] = _nothing
    """To call last, so that all spans are sent."""


def install(app: FastAPI) -> Tracing:
    """Sends spans to the collector that the environment names, as OpenTelemetry's own variables say; else nothing.

    Needs the extra `otel`. vLLM goes on with the trace where it is started with `--otlp-traces-endpoint`.
    """
    if not os.environ.get(SWITCH):
        return Tracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.error(
            "%s is set, but there are no traces: %s; install kinetics-serve with its extra 'otel'", SWITCH, error
        )
        return Tracing()
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: os.environ.get(SERVICE, "kinetics-serve")}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="health,ready,metrics", exclude_spans=["receive", "send"]
    )
    return Tracing((_of_client(provider.get_tracer(__name__)),), provider.shutdown)


def _of_client(tracer: "Tracer") -> aiohttp.TraceConfig:
    """A span for each request of a client, from when it is sent to when the answer begins; it carries the trace on."""
    from opentelemetry.propagate import inject
    from opentelemetry.trace import SpanKind, set_span_in_context

    async def started(
        session: aiohttp.ClientSession, request: SimpleNamespace, sent: aiohttp.TraceRequestStartParams
    ) -> None:
        attributes = {"http.request.method": sent.method, "url.full": str(sent.url)}
        request.span = tracer.start_span(f"{sent.method} {sent.url.path}", kind=SpanKind.CLIENT, attributes=attributes)
        inject(sent.headers, set_span_in_context(request.span))

    async def answered(
        session: aiohttp.ClientSession, request: SimpleNamespace, answer: aiohttp.TraceRequestEndParams
    ) -> None:
        request.span.set_attribute("http.response.status_code", answer.response.status)
        request.span.end()

    async def failed(
        session: aiohttp.ClientSession, request: SimpleNamespace, failure: aiohttp.TraceRequestExceptionParams
    ) -> None:
        request.span.record_exception(failure.exception)
        request.span.end()

    traces = aiohttp.TraceConfig()
    traces.on_request_start.append(started)
    traces.on_request_end.append(answered)
    traces.on_request_exception.append(failed)
    return traces
