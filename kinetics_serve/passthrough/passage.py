"""The way of a request without a budget to an engine, and of vLLM's own answer back."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import ClientResponse
from fastapi.responses import Response

from kinetics_serve.engine.errors import EngineNonsense
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.server_sent_events import DataWatch
from kinetics_serve.engine.upstream import Json
from kinetics_serve.observability.metrics import PassedThrough
from kinetics_serve.passthrough import worst_case
from kinetics_serve.requests import load
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import CancellingStream, telling

NOT_PASSED_ON = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info"),
        *(b"content-length", b"date", b"server"),
        b"alt-svc",
    }
)
"""Headers of an answer that are its connection's (RFC 9110, 7.6.1), or its server's and so ours to say."""


class Passage:
    """One request to `path`, made when it arrives. body: what it says. Raises what choosing an engine does."""

    def __init__(self, call: Call, path: str, body: Mapping[str, Any]) -> None:
        model = body.get("model")
        self.call = call
        self.path = path
        self.body = body
        self.route = Route(call.services.pool, model if isinstance(model, str) else None, body)
        self.deadline = call.services.deadline()

    async def admitted(self, stack: AsyncExitStack, *, queued: bool = True) -> PassedThrough:
        """Until `stack` is left, the request runs, and the metrics know. queued: it waits for its turn before."""
        services = self.call.services
        passed = services.metrics.passed_through(self.route.served.name)
        if queued:
            expected = load.plain(self.body, len(self.call.content), self.route.served)
            await stack.enter_async_context(services.admitted(self.call.tenant, expected, self.deadline))
        return stack.enter_context(passed)

    async def opened(
        self, stack: AsyncExitStack, content: Json | bytes, headers: Sequence[str], *, streamed: bool, raw: bool = False
    ) -> tuple[ClientResponse, AsyncGenerator[bytes, None]]:
        """vLLM's answer, which has begun, and its pieces, until `stack` is left. headers: the client's that go along.

        streamed, raw: see `Upstream.open`.
        """
        # aiohttp would ask for a compressed answer on its own account.
        sent = {"accept-encoding": "identity"} | self._headers(headers)
        opening = self.route.open(self.path, content, sent, streamed=streamed, raw=raw)
        response, pieces = await stack.enter_async_context(opening)
        return response, self._bounded(response, pieces)

    async def _bounded(self, response: ClientResponse, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Raises EngineUnavailable where the answer goes on beyond the server's deadline, or says more than the request
        allows: vLLM ends both of itself, but not all that speak like it do."""
        counted = response.content_type == "text/event-stream" and "content-encoding" not in response.headers
        most = worst_case.events(self.path, self.body, self.route.served) if counted else None
        watch, seen = DataWatch(), 0
        async for piece in pieces:
            self.deadline.check()
            if most is not None and (seen := seen + watch.sees(piece)) > most:
                raise EngineNonsense("the engine went on beyond the request's max_tokens, so it was cut off")
            yield piece

    def _headers(self, names: Sequence[str]) -> dict[str, str]:
        """Those of the client's headers; not what no header may hold, which aiohttp refuses to send."""
        given = self.call.request.headers
        found = {name: given[name] for name in names if name in given}
        return {name: value for name, value in found.items() if value.isascii() and value.isprintable()}

    def stream(
        self,
        response: ClientResponse,
        pieces: AsyncIterator[bytes],
        resources: AsyncExitStack,
        without: Collection[bytes] = (),
    ) -> Response:
        """The answer as it comes, which `resources` hold open. without: more headers that are not passed on."""
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            pieces = telling(self.path, pieces)
        answer = CancellingStream(pieces, resources.aclose, status_code=response.status)
        answer.raw_headers.extend(answered_headers(response, without))
        return answer


def answered_headers(response: ClientResponse, without: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """Those of the engine's answer that are passed on, as bytes: a header need be no text. without: more that are not,
    in lower case. Which web pages may read the answer is this server's to say.
    """
    headers = [(name.lower(), value) for name, value in response.raw_headers]
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    dropped = NOT_PASSED_ON.union(named, without)
    return [each for each in headers if each[0] not in dropped and not each[0].startswith(b"access-control-")]
