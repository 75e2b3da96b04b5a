"""Traces reach the collector that the environment names; without one there are none."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import aiohttp
import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kinetics_serve.engine.client import new_client
from kinetics_serve.observability import tracing


class Collected(NamedTuple):
    """spans: batches of them. parents: of other requests that came here, what trace they said to belong to."""

    url: str
    spans: list[bytes]
    parents: list[str]


@pytest.fixture
def collector() -> Iterator[Collected]:
    received: list[bytes] = []
    parents: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                received.append(content)
            else:
                parents.append(self.headers["traceparent"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Collected(f"http://127.0.0.1:{server.server_port}", received, parents)
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


async def test_requests_are_traced_and_what_they_ask_of_others(
    collector: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(tracing.SWITCH, collector.url)
    traced = app()
    traces = tracing.install(traced)
    await ask(traced)
    async with new_client(traces.of_clients) as client:
        await client.post(f"{collector.url}/v1/completions", data=b"{}")
        with pytest.raises(aiohttp.ClientError):
            await client.post("http://127.0.0.1:9/v1/chat/completions", data=b"{}")
    traces.end()
    exports = map(ExportTraceServiceRequest.FromString, collector.spans)
    resources = [resource for export in exports for resource in export.resource_spans]
    spans = {span.name: span for resource in resources for scope in resource.scope_spans for span in scope.spans}
    assert {"GET /v1/models", "POST /v1/completions", "POST /v1/chat/completions"} <= spans.keys()
    assert spans["POST /v1/completions"].trace_id.hex() in collector.parents[0]
    for resource in resources:
        assert any(each.value.string_value == "kinetics-serve" for each in resource.resource.attributes)


async def test_without_a_collector_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tracing.SWITCH, raising=False)
    plain = app()
    assert tracing.install(plain).of_clients == ()
    assert plain.user_middleware == []
