"""The way of a request without a budget to an engine, and of vLLM's own answer back."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import ClientResponse
from fastapi.responses import Response

from kinetics_serve.engine.errors import EngineNonsense
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.observability.metrics import PassedThrough
from kinetics_serve.passthrough import worst_case
from kinetics_serve.passthrough.events import Event, split
from kinetics_serve.requests import load
from kinetics_serve.requests.call import Call
from kinetics_serve.requests.disconnect import CancellingStream

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
        model = body.get("model") or None  # to vLLM, an empty name is none
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
        return await stack.enter_async_context(opening)

    async def events(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[list[Event], None]:
        """Those of an answer that streams. Raises EngineUnavailable where it says more than the request allows: vLLM
        ends that of itself, but not all that speak like it do."""
        most = worst_case.events(self.path, self.body, self.route.served)
        seen = 0
        async for events in split(pieces):
            seen += sum(1 for event in events if event.data)
            if most is not None and seen > most:
                raise EngineNonsense("the engine went on beyond the request's max_tokens, so it was cut off")
            yield events

    def over(self, passed: PassedThrough, status: int) -> None:
        """The client has all that it waits for: the engine did its work, whatever its connection does after that."""
        passed.answered(status)
        self.route.upstream.circuit.succeeded()

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
        if (left := self.deadline.remaining_s) is not None:  # the engine may be silent by then, so reading itself ends
            loop = asyncio.get_running_loop()
            resources.callback(loop.call_later(left, response.content.set_exception, self.deadline.passed()).cancel)
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
