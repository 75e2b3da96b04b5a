"""Traces reach the collector that the environment names; without one there are none."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kinetics_serve import tracing


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> str:
        return "none"

    return app


async def ask(app: FastAPI) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://kinetics") as client:
        assert (await client.get("/v1/models?secret=1")).status_code == 200


async def test_requests_are_traced(collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, received = collector
    monkeypatch.setenv(tracing.SWITCH, url)
    traced = app()
    end = tracing.install(traced)
    try:
        await ask(traced)
        end()
    finally:
        HTTPXClientInstrumentor().uninstrument()
    spans = ExportTraceServiceRequest.FromString(received[0]).resource_spans[0]
    names = [span.name for scope in spans.scope_spans for span in scope.spans]
    assert "GET /v1/models" in names
    assert any(each.value.string_value == "kinetics-serve" for each in spans.resource.attributes)


async def test_without_a_collector_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.SWITCH, raising=False)
    plain = app()
    tracing.install(plain)()
    assert plain.user_middleware == []
