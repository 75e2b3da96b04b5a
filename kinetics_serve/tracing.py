"""OpenTelemetry traces, where an administrator asks for them: the requests, and what they ask of vLLM."""

import logging
import os
from collections.abc import Callable

from fastapi import FastAPI

logger = logging.getLogger(__name__)

SWITCH = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVICE = "OTEL_SERVICE_NAME"


def _nothing() -> None: ...


def install(app: FastAPI) -> Callable[[], None]:
    """Sends spans to the collector that the environment names, as OpenTelemetry's own variables say; else nothing.

    Returns what to call at the end, so that the last of them are sent.
    Needs the extra `otel`. vLLM goes on with the trace where it is started with `--otlp-traces-endpoint`.
    """
    if not os.environ.get(SWITCH):
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.error("%s is set, but there are no traces: %s; install kinetics-serve[otel]", SWITCH, error)
        return _nothing
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: os.environ.get(SERVICE, "kinetics-serve")}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="health,ready,metrics", exclude_spans=["receive", "send"]
    )
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    return provider.shutdown
