"""One vLLM server, over its public HTTP API."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from kinetics_serve.engine.circuit import Circuit
from kinetics_serve.engine.errors import EngineLost, EngineOverloaded, EngineRejected, EngineSilent, EngineUnavailable
from kinetics_serve.engine.info import EngineInfo, read_info
from kinetics_serve.engine.patient_reader import PatientReader
from kinetics_serve.observability.request_id import HEADER as REQUEST_ID
from kinetics_serve.observability.request_id import request_id

logger = logging.getLogger(__name__)

INFO_TIMEOUT = aiohttp.ClientTimeout(total=10.0)

HEALTH_TIMEOUT = aiohttp.ClientTimeout(sock_connect=2.0, sock_read=2.0)

Json = dict[str, Any]


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
    """A server at `url`. `outstanding`: requests of ours in flight there. `circuit`: knows how they ended.

    api_key: what it knows us by.
    """

    def __init__(
        self, url: str, client: aiohttp.ClientSession, patience: Patience | None = None, api_key: str | None = None
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.client = client
        self.patience = patience or Patience()
        self._authorization = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.outstanding = 0
        self.circuit = Circuit()

    async def problem(self) -> str | None:
        """Why it is not healthy; None where it is."""
        opening = self.client.get(
            f"{self.url}/health", headers=self._authorization, allow_redirects=False, timeout=HEALTH_TIMEOUT
        )
        try:
            async with opening as response:
                return None if response.status == 200 else f"/health answered {response.status}"
        except aiohttp.ClientError as error:
            return str(error) or type(error).__name__

    async def models(self) -> list[ModelCard]:
        body = await self._json("GET", "/v1/models")
        return [
            ModelCard(card["id"], card.get("root") or card["id"], card.get("max_model_len"), card)
            for card in body["data"]
        ]

    async def info(self) -> EngineInfo:
        """What it says of itself, which is nothing where it has no `/metrics`. Raises ValueError where that can't be
        understood."""
        opening = self.client.get(
            f"{self.url}/metrics", headers=self._authorization, allow_redirects=False, timeout=INFO_TIMEOUT
        )
        try:
            async with opening as response:
                return read_info(await response.text()) if response.status == 200 else EngineInfo()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineUnavailable(f"/metrics: {str(error) or type(error).__name__}") from error

    async def count_tokens(self, body: Json) -> int:
        """The tokens of a prompt: `body` is a `/tokenize` request."""
        try:
            async with asyncio.timeout(self.patience.first_token_s):
                return int((await self._json("POST", "/tokenize", body))["count"])
        except TimeoutError:
            raise self._silent(self.patience.first_token_s) from None
        except (KeyError, TypeError) as error:
            raise EngineUnavailable(f"{self.url}/tokenize does not answer as vLLM's") from error
        except EngineRejected as error:
            if error.status == 404:
                raise EngineUnavailable(f"{self.url} has no /tokenize, which budgets need") from None
            raise

    async def post(self, path: str, body: Json) -> Json:
        """The whole answer of a model. Raises EngineRejected (4xx) and EngineUnavailable."""
        answer = await self._json("POST", path, body)
        self.circuit.succeeded()
        return answer

    async def count_message(self, body: Json) -> Json:
        """The answer to a `/v1/messages/count_tokens` request."""
        return await self._json("POST", "/v1/messages/count_tokens", body)

    @asynccontextmanager
    async def stream(self, path: str, body: Json) -> AsyncIterator[AsyncIterator[list[Json]]]:
        """The chunks of a streamed completion that the server has accepted, as many at a time as arrived together.

        Leaving makes vLLM abort it.

        Raises EngineRejected (4xx) and EngineUnavailable, also when the stream ends before its `[DONE]`.
        """
        async with self.open("POST", path, body, streamed=True) as response:
            if response.status >= 400:
                raise EngineRejected(response.status, await _reason(response))
            yield self._chunks(response)

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
        """A response whose body has not been read: vLLM's answer, or its refusal (4xx).

        streamed: the server is expected to answer when it has a token, not when it has them all. raw: the body is
        wanted as it is sent, be it compressed. Raises EngineUnavailable, also for what isn't the client's fault: the
        server's own failures (5xx), too many requests, a key of ours that it doesn't take.
        """
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"content-type": "application/json", **(headers or {}), **self._authorization}
        if (name := request_id.get()) is not None:
            headers[REQUEST_ID] = name
        self.outstanding += 1
        try:
            limit = self.patience.first_token_s
            timer = asyncio.timeout(limit if streamed else None)
            try:
                async with timer:
                    response = await self.client.request(
                        method,
                        self.url + path,
                        data=content,
                        headers=headers,
                        allow_redirects=False,
                        auto_decompress=not raw,
                    )
            except TimeoutError:
                if not timer.expired():  # connecting took too long
                    raise
                raise self._silent(limit) from None
            async with response:
                await self._raise_for_our_fault(response)
                yield response
        except aiohttp.ClientError as error:
            raise self._lost(f"no connection to the engine: {type(error).__name__}") from error
        finally:
            self.outstanding -= 1

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body of a streamed response as it comes. Raises EngineUnavailable.

        Reading it to its end tells that the server works.
        """
        async for piece in self._pieces(response):
            yield piece
        self.circuit.succeeded()

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        reader = PatientReader(response.content)
        limit = self.patience.first_token_s
        try:
            while piece := await reader.read(limit):
                yield piece
                limit = self.patience.token_s
        except TimeoutError:
            raise self._silent(limit) from None
        except aiohttp.ClientError as error:
            raise self._lost(f"the engine broke off: {type(error).__name__}") from error
        finally:
            reader.close()

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncGenerator[list[Json], None]:
        done = False  # what follows is read too, so that the connection can be used again
        rest = b""
        async for piece in self._pieces(response):
            # Lines end in a line feed and nothing else: text may hold Unicode's other line ends.
            *lines, rest = (rest + piece).split(b"\n")
            chunks: list[Json] = []
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                if line[5:].strip() == b"[DONE]":
                    done = True
                    continue
                try:
                    chunk = _object(line[5:])
                    if chunk.get("error"):
                        raise self._failure(chunk)
                except Exception:
                    if chunks:  # they were generated, so they cost
                        yield chunks
                    raise
                chunks.append(chunk)
            if chunks:
                yield chunks
        if not done:
            raise self._lost("the engine broke off in the middle of a sample")
        self.circuit.succeeded()

    def _failure(self, chunk: Json) -> Exception:
        """What the server says in a stream, in the place of a token."""
        error = chunk["error"]
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 500:  # vLLM checks some parameters only when it generates
            return EngineRejected(code, _message(chunk))
        return self._lost(f"the engine failed: {_message(chunk)}")

    def _silent(self, seconds: float) -> EngineSilent:
        self._failed(lost=False)
        return EngineSilent(f"the engine generated nothing for {seconds:g} s")

    async def _raise_for_our_fault(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status == 429:
            wait = response.headers.get("retry-after", "")
            raise EngineOverloaded("the engine has too much to do", int(wait) if wait.isdecimal() else None)
        if status in (401, 403):
            raise EngineUnavailable(
                "the engine does not take this server's key: its administrator sets it with KINETICS_UPSTREAM_API_KEY"
            )
        if status >= 500 or status == 408:
            if status != 500:  # that can be the request's own doing
                self._failed(lost=False)
            raise EngineUnavailable(f"the engine answered {status}: {await _reason(response)}")

    def _lost(self, message: str) -> EngineLost:
        self._failed(lost=True)
        return EngineLost(message)

    def _failed(self, lost: bool) -> None:
        openings = self.circuit.openings
        self.circuit.failed(time.monotonic(), lost)
        if self.circuit.openings > openings:
            logger.warning("%s fails: it gets no requests until it has rested and passed a check", self.url)

    async def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        async with self.open(method, path, body) as response:
            if response.status >= 400:
                raise EngineRejected(response.status, await _reason(response))
            return _object(await response.read())


async def _reason(response: aiohttp.ClientResponse) -> str:
    """Why the server refuses, in its own words."""
    try:
        return _message(json.loads(await response.read()))
    except ValueError:
        return f"HTTP {response.status}"


def _object(data: bytes) -> Json:
    try:
        value = orjson.loads(data)  # a third of json's time, once a token
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EngineUnavailable("the engine's answer is not the JSON object that vLLM sends")
    return value


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)
