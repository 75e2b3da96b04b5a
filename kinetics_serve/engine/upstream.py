"""One vLLM server, over its public HTTP API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

CONNECT_TIMEOUT_S = 5.0
HEALTH_TIMEOUT_S = 2.0

Json = dict[str, Any]


class EngineUnavailable(Exception):
    """No answer from the server, or one that broke off. Another try may succeed."""


class EngineRejected(Exception):
    """The server refused the request as it is: `status` is its 4xx, `message` its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model as `/v1/models` lists it. `root`: the folder or Hugging Face name that it was loaded from."""

    name: str
    root: str
    max_model_len: int | None
    raw: Json


def new_client() -> httpx.AsyncClient:
    """The connections that all upstreams share. Generation may take its time; connecting may not."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        trust_env=False,
    )


class Upstream:
    """A server at `url`. `outstanding`: requests of ours in flight there."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.client = client
        self.outstanding = 0

    async def healthy(self) -> bool:
        try:
            response = await self.client.get(f"{self.url}/health", timeout=HEALTH_TIMEOUT_S)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    async def models(self) -> list[ModelCard]:
        body = await self._json("GET", "/v1/models")
        return [
            ModelCard(card["id"], card.get("root") or card["id"], card.get("max_model_len"), card)
            for card in body["data"]
        ]

    async def count_tokens(self, body: Json) -> int:
        """The tokens of a prompt: `body` is a `/tokenize` request."""
        return int((await self._json("POST", "/tokenize", body))["count"])

    @asynccontextmanager
    async def stream(self, path: str, body: Json) -> AsyncIterator[AsyncIterator[Json]]:
        """The chunks of a streamed completion that the server has accepted. Leaving makes vLLM abort it.

        Raises EngineRejected (4xx) and EngineUnavailable, also when the stream ends before its `[DONE]`.
        """
        async with self.open("POST", path, body) as response:
            await _raise_for_status(response)
            yield _chunks(response)

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Json | bytes | None = None, headers: dict[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A response whose body has not been read. Raises EngineUnavailable."""
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        headers = {"content-type": "application/json", **(headers or {})}
        self.outstanding += 1
        try:
            request = self.client.build_request(method, self.url + path, content=content, headers=headers)
            response = await self.client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise EngineUnavailable(f"no connection to the engine: {type(error).__name__}") from error
        finally:
            self.outstanding -= 1

    async def _json(self, method: str, path: str, body: Json | None = None) -> Json:
        async with self.open(method, path, body) as response:
            await _raise_for_status(response)
            result: Json = json.loads(await response.aread())
            return result


async def _raise_for_status(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        message = _message(json.loads(await response.aread()))
    except ValueError:
        message = f"HTTP {response.status_code}"
    if response.status_code < 500 and response.status_code not in (408, 429):
        raise EngineRejected(response.status_code, message)
    raise EngineUnavailable(f"the engine answered {response.status_code}: {message}")


async def _chunks(response: httpx.Response) -> AsyncIterator[Json]:
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            return
        chunk: Json = json.loads(data)
        if "error" in chunk:
            raise EngineUnavailable(f"the engine failed: {_message(chunk)}")
        yield chunk
    raise EngineUnavailable("the engine broke off in the middle of a sample")


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)
