"""One vLLM server, over its public HTTP API."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from kinetics_serve import clock
from kinetics_serve.engine.answer_body import UNSUPPORTED, object_of, reason
from kinetics_serve.engine.chunks import BRIEF, AnyChunk, Decoder
from kinetics_serve.engine.circuit import Circuit
from kinetics_serve.engine.client import Sending, new_client
from kinetics_serve.engine.errors import (
    EngineGaveUp,
    EngineLost,
    EngineOverloaded,
    EngineRefusesKey,
    EngineRejected,
    EngineSilent,
    EngineUnavailable,
)
from kinetics_serve.engine.info import EngineInfo, read_info
from kinetics_serve.engine.patient_reader import PatientReader
from kinetics_serve.engine.retry_after import retry_after_s
from kinetics_serve.engine.sample_stream import chunks_of
from kinetics_serve.engine.server_sent_events import DataWatch, EventTooLong
from kinetics_serve.engine.usage import count
from kinetics_serve.observability.request_id import HEADER as REQUEST_ID
from kinetics_serve.observability.request_id import request_id

logger = logging.getLogger(__name__)

INFO_TIMEOUT = aiohttp.ClientTimeout(total=10.0)

Json = dict[str, Any]

HEALTH_TIMEOUT = aiohttp.ClientTimeout(total=4.0, sock_connect=2.0, sock_read=2.0)

LISTING_TIMEOUT_S = 10.0
"""For a server to list its models."""

NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ServerFingerprintMismatch)
"""Where nobody was reached. Whatever else fails, there was a server."""

CLOSED_WITHIN_S = 2.0
"""A server that closed a connection before a request reached it says so at once. One that breaks it off later has
worked on the request."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a stream may take to its first token, and from one token to the next."""

    first_token_s: float = 600.0
    token_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as `/v1/models` lists it."""

    name: str
    root: str
    """The folder or Hugging Face name that it was loaded from."""
    max_model_len: int | None
    raw: Json


class Upstream:
    """A server at `url`, as `server_url` gives it. `outstanding`: requests of ours in flight there. `circuit`: knows
    how they ended.

    api_key: what it knows us by.
    """

    def __init__(
        self, url: str, client: aiohttp.ClientSession, patience: Patience | None = None, api_key: str | None = None
    ) -> None:
        self.url = url
        self.client = client
        self.patience = patience or Patience()
        self._authorization = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.outstanding = 0
        self.circuit = Circuit()

    async def check_health(self) -> None:
        """Raises EngineUnavailable where it is not healthy, EngineSilent where it doesn't say."""
        opening = self.client.get(
            f"{self.url}/health", headers=self._authorization, allow_redirects=False, timeout=HEALTH_TIMEOUT
        )
        try:
            async with opening as response:
                if response.status != 200:
                    raise EngineUnavailable(f"/health answered {response.status}")
        except TimeoutError:
            raise EngineSilent("/health did not answer in time") from None
        except aiohttp.ClientError as error:
            raise EngineUnavailable(str(error) or type(error).__name__) from error

    async def models(self) -> list[ModelCard]:
        """Raises EngineRejected, EngineUnavailable."""
        try:
            async with asyncio.timeout(LISTING_TIMEOUT_S):
                body = await self._json("GET", "/v1/models")
            return [
                ModelCard(card["id"], card.get("root") or card["id"], count(card, "max_model_len"), card)
                for card in body["data"]
            ]
        except TimeoutError:
            raise EngineSilent(f"/v1/models took longer than {LISTING_TIMEOUT_S:g} s") from None
        except (AttributeError, KeyError, TypeError) as error:
            raise EngineUnavailable("/v1/models does not answer as vLLM's") from error

    async def info(self) -> EngineInfo:
        """What it says of itself, which is nothing where it has no `/metrics`. Raises ValueError where that can't be
        understood."""
        opening = self.client.get(
            f"{self.url}/metrics", headers=self._authorization, allow_redirects=False, timeout=INFO_TIMEOUT
        )
        try:
            async with opening as response:
                found = read_info(await response.text()) if response.status == 200 else EngineInfo()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(f"/metrics: {str(error) or type(error).__name__}") from error
        return replace(found, vllm=await self._version())

    async def _version(self) -> str | None:
        opening = self.client.get(
            f"{self.url}/version", headers=self._authorization, allow_redirects=False, timeout=INFO_TIMEOUT
        )
        try:
            async with opening as response:
                stated = object_of(await response.read()).get("version") if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, EngineUnavailable):
            return None
        return stated if isinstance(stated, str) else None

    async def count_tokens(self, body: Json) -> int:
        """The tokens of a prompt: `body` is a `/tokenize` request."""
        try:
            async with asyncio.timeout(self.patience.first_token_s):
                length = count(await self._json("POST", "/tokenize", body), "count")
        except TimeoutError:
            raise self._silent(self.patience.first_token_s) from None
        except EngineRejected as error:
            if error.status == 404:
                raise EngineUnavailable(f"{self.url} has no /tokenize, which budgets need") from None
            raise
        if length is None:
            raise EngineUnavailable(f"{self.url}/tokenize does not answer as vLLM's")
        return length

    async def post(self, path: str, body: Json) -> Json:
        """The whole answer of a model. Raises EngineRejected (4xx) and EngineUnavailable."""
        answer = await self._json("POST", path, body)
        self.circuit.succeeded()
        return answer

    async def count_message(self, body: Json) -> Json:
        """The answer to a `/v1/messages/count_tokens` request."""
        return await self._json("POST", "/v1/messages/count_tokens", body)

    @asynccontextmanager
    async def stream(
        self, path: str, body: Json, decoder: Decoder = BRIEF
    ) -> AsyncIterator[AsyncIterator[Sequence[AnyChunk]]]:
        """The chunks of a sample that the server has accepted, as many at a time as arrived together.

        Leaving makes vLLM abort it. decoder: what is read of a chunk.

        Raises EngineRejected (4xx) and EngineUnavailable, also when the stream ends before the sample does.
        """
        async with self.open("POST", path, body, streamed=True) as response:
            if response.status >= 400:
                raise EngineRejected(response.status, await reason(response))
            yield self._chunks(response, decoder)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Json | bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        streamed: bool = False,
        raw: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response whose body has not been read: vLLM's answer, or its refusal (4xx, or UNSUPPORTED).

        streamed: the server is expected to answer when it has a token, not when it has them all. raw: the body is
        wanted as it is sent, be it compressed. Raises EngineUnavailable, also for what isn't the client's fault: the
        server's own failures (other 5xx), too many requests, a key of ours that it doesn't take.
        """
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"content-type": "application/json", **(headers or {}), **self._authorization}
        if (name := request_id.get()) is not None:
            headers[REQUEST_ID] = name
        self.outstanding += 1
        try:
            async with AsyncExitStack() as stack:
                limit = self.patience.first_token_s
                timer = asyncio.timeout(limit if streamed else None)
                try:
                    async with timer:
                        response = await self._answer(stack, method, path, content, headers, raw)
                except TimeoutError:
                    if not timer.expired():  # connecting took too long
                        raise
                    raise self._silent(limit) from None
                await self._raise_for_our_fault(response)
                yield response
        except NO_CONNECTION as error:
            raise self._lost(f"no connection to the engine: {type(error).__name__}") from error
        except aiohttp.ClientResponseError as error:
            raise self._broken("the engine's answer is no HTTP that can be read") from error
        except aiohttp.ClientError as error:
            raise self._broken(f"the engine broke off: {type(error).__name__}") from error
        finally:
            self.outstanding -= 1

    async def _answer(
        self, stack: AsyncExitStack, method: str, path: str, content: bytes | None, headers: dict[str, str], raw: bool
    ) -> aiohttp.ClientResponse:
        """The response, until `stack` is left.

        A connection that waited for its next use may be closed by the server, or by a proxy, just as a request is sent
        on it. Then the request is sent once more, on a new one. At worst it runs twice: never more often, since it may
        be what makes the server break off.
        """

        async def send(client: aiohttp.ClientSession) -> aiohttp.ClientResponse:
            response = await client.request(
                method,
                self.url + path,
                data=content,
                headers=headers,
                allow_redirects=False,
                auto_decompress=not raw,
                trace_request_ctx=sending,
            )
            return await stack.enter_async_context(response)

        sending, begun = Sending(), clock.now()
        try:
            return await send(self.client)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if not sending.reused or clock.now() > begun + CLOSED_WITHIN_S:
                raise
        return await send(await stack.enter_async_context(new_client(self.client.trace_configs)))

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body of a streamed response as it comes. Raises EngineUnavailable.

        A stream's `data` are its progress. Reading it to its end tells that the server works.
        """
        events = response.content_type == "text/event-stream" and "content-encoding" not in response.headers
        watch = DataWatch()
        with self._reading(response) as reader:
            while piece := await reader.read():
                if not events or watch.sees(piece):
                    reader.progressed(self.patience.token_s)
                yield piece
        self.circuit.succeeded()

    @contextmanager
    def _reading(self, response: aiohttp.ClientResponse) -> Iterator[PatientReader]:
        reader = PatientReader(response.content, self.patience.first_token_s)
        try:
            yield reader
        except TimeoutError:
            raise self._silent(reader.limit_s) from None
        except (aiohttp.ClientError, EventTooLong) as error:
            raise self._broken(f"the engine broke off: {type(error).__name__}") from error
        finally:
            reader.close()

    async def _chunks(
        self, response: aiohttp.ClientResponse, decoder: Decoder
    ) -> AsyncGenerator[Sequence[AnyChunk], None]:
        with self._reading(response) as reader:
            async for chunks in chunks_of(reader, self.patience.token_s, decoder):
                yield chunks
        self.circuit.succeeded()

    def _silent(self, seconds: float) -> EngineSilent:
        self._failed(lost=False)
        return EngineSilent(f"the engine generated nothing for {seconds:g} s")

    async def _raise_for_our_fault(self, response: aiohttp.ClientResponse) -> None:
        """Where another try, or another server, may do better, or an administrator must."""
        status = response.status
        if 300 <= status < 400:
            raise EngineUnavailable(f"the engine answered {status}, a redirect: --upstream must name the server itself")
        if status == 401:  # a client's own key is not sent to it
            raise EngineRefusesKey(
                "the engine does not take this server's key: its administrator sets it with KINETICS_UPSTREAM_API_KEY"
            )
        if status in UNSUPPORTED or (status < 500 and status not in (408, 429)):
            return
        if status == 504:
            raise EngineGaveUp(f"the engine answered 504: {await reason(response)}")
        wait = retry_after_s(response.headers.get("retry-after"))
        if status == 429:
            raise EngineOverloaded("the engine has too much to do", wait)
        if status != 500:  # that can be the request's own doing
            self._failed(lost=False)
        raise EngineUnavailable(f"the engine answered {status}: {await reason(response)}", wait)

    def _lost(self, message: str) -> EngineLost:
        self._failed(lost=True)
        return EngineLost(message)

    def _broken(self, message: str) -> EngineUnavailable:
        """One stream broke: that may be its own doing. Where the server is gone, the next request finds nobody."""
        self._failed(lost=False)
        return EngineUnavailable(message)

    def _failed(self, lost: bool) -> None:
        openings = self.circuit.openings
        self.circuit.failed(clock.now(), lost)
        if self.circuit.openings > openings:
            logger.warning("%s fails: it gets no requests until it has rested and passed a check", self.url)

    async def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        async with self.open(method, path, body) as response:
            if response.status >= 400:
                raise EngineRejected(response.status, await reason(response))
            return object_of(await response.read())
