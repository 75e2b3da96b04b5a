"""The way of one request to a server, and to another when that one fails before it has generated anything."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from kinetics_serve.engine.errors import EngineGaveUp, EngineUnavailable
from kinetics_serve.engine.pool import ModelNotFound, Pool
from kinetics_serve.engine.upstream import Json, Upstream

logger = logging.getLogger(__name__)

MAX_RETRIES = 2
"""More would hand a request that breaks servers to all of them."""

T = TypeVar("T")


class Route:
    """All samples of a request share one server, and so its prefix cache, until that one fails.

    model, body: see `Pool.pick`, whose errors this raises too. upstream: the server to use now. served: the model;
    servers that give one name to different models are an administrator's mistake.
    """

    def __init__(self, pool: Pool, model: str | None, body: Mapping[str, Any]) -> None:
        self._pool = pool
        self._body = body
        self._failed: set[Upstream] = set()
        self.upstream, self.served = pool.pick(model, body)

    def choose(self) -> None:
        """Chooses the server again, now that samples are about to be sent: others may have gone there while the request
        waited for its turn. Only one where they cost what they were priced at comes into question.
        """
        try:
            upstream, served = self._pool.pick(self.served.name, self._body, self._failed)
        except (EngineUnavailable, ModelNotFound):  # the server of before will say what is wrong
            return
        if (served.price, served.kv) == (self.served.price, self.served.kv):
            self.upstream = upstream

    def move(self, failed: Upstream, error: EngineUnavailable) -> None:
        """From a server that failed the request to another. Raises `error` where there is none, where too many failed,
        and where another would do no better."""
        if isinstance(error, EngineGaveUp):
            raise error
        if failed is not self.upstream:  # another sample of the request has moved it already
            return
        self._failed.add(failed)
        if len(self._failed) > MAX_RETRIES:
            raise error
        try:
            self.upstream, _ = self._pool.pick(self.served.name, self._body, without=self._failed)
        except (EngineUnavailable, ModelNotFound):
            raise error from None
        kind = type(error).__name__  # not its words, which are the engine's and may quote the prompt
        logger.warning("%s failed a request, which goes to %s: %s", failed.url, self.upstream.url, kind)

    async def ask(self, question: Callable[[Upstream], Awaitable[T]]) -> T:
        """What a server answers; `question` can be asked again."""
        while True:
            upstream = self.upstream
            try:
                return await question(upstream)
            except EngineUnavailable as error:
                self.move(upstream, error)

    @asynccontextmanager
    async def open(
        self, path: str, body: Json | bytes, headers: dict[str, str], *, streamed: bool, raw: bool = False
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, AsyncGenerator[bytes, None]]]:
        """A response whose body has begun, and the pieces of that: see `Upstream.open` and `Upstream.pieces`."""
        self.choose()
        async with AsyncExitStack() as stack:

            async def begin(upstream: Upstream) -> tuple[aiohttp.ClientResponse, bytes, AsyncGenerator[bytes, None]]:
                async with AsyncExitStack() as attempt:
                    opening = upstream.open("POST", path, body, headers, streamed=streamed, raw=raw)
                    response = await attempt.enter_async_context(opening)
                    pieces = await attempt.enter_async_context(aclosing(upstream.pieces(response)))
                    first = await anext(pieces, b"")
                    stack.push_async_callback(attempt.pop_all().aclose)
                return response, first, pieces

            response, first, rest = await self.ask(begin)
            yield response, _joined(first, rest)


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in rest:
        yield piece
