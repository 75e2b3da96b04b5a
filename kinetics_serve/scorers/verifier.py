"""A client's own program, over HTTP: it gets the question and a sample, and answers with a score."""

import asyncio
import json
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Literal
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, field_validator
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.engine.upstream import Json
from kinetics_serve.scorers.scorer import Score, ScorerFailed, ScorerRefused
from kinetics_serve.scorers.spec import ScorerContext, ScorerOptions, ScorerSpec

TRIES = 3
FIRST_PAUSE_S = 0.25
"""Before the next try; doubled each time."""

MAX_RESPONSE_BYTES = 64 << 10
MAX_URL_LENGTH = 8192
MAX_TIMEOUT_S = 300.0


class _Refused(Exception):
    """No score came; the message says why."""


class _Again(_Refused):
    """Another try may bring one."""


class HttpScorer(ScorerOptions):
    """A program at a URL whose host the server's administrator allows."""

    kind: Literal["http"]
    url: str = Field(examples=["https://verifier.example/score"])
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S, strict=True)] = 10.0

    @field_validator("url")
    @classmethod
    def leads_somewhere(cls, value: str) -> str:
        host_of(value)
        return value


@dataclass(frozen=True, slots=True)
class Verifier:
    """Costs no eFLOPs: what it does is not this server's compute."""

    client: aiohttp.ClientSession
    url: str
    messages: list[Json]
    timeout_s: float
    """Of each try."""
    first_pause_s: float = FIRST_PAUSE_S

    def worst_case(self, tokens: int) -> Cost:
        return ZERO

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        tries = AsyncRetrying(
            retry=retry_if_exception_type(_Again),
            stop=stop_after_attempt(TRIES),
            wait=wait_exponential(self.first_pause_s),
            reraise=True,
        )
        try:
            content: bytes = await tries(self._answer, {"messages": self.messages, "text": text, "answer": answer})
        except _Refused as error:
            tried = tries.statistics["attempt_number"]
            raise ScorerFailed(f"the verifier {self.url} gave no score: {error} (tried {tried} times)") from None
        return Score(_score(self.url, content))

    async def _answer(self, body: Json) -> bytes:
        try:
            async with asyncio.timeout(self.timeout_s):
                status, content = await self._post(body)
        except aiohttp.ClientError as error:
            raise _Again(type(error).__name__) from error
        except TimeoutError:
            raise _Again(f"no answer within {self.timeout_s:g} s") from None
        if status == 200:
            return content
        raise (_Again if status >= 500 or status in (408, 429) else _Refused)(f"HTTP {status}")

    async def _post(self, body: Json) -> tuple[int, bytes]:
        """The status, and no more of the answer than is sane. Redirects are not followed: they could lead anywhere."""
        async with self.client.post(self.url, json=body, allow_redirects=False) as response:
            content = b""
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > MAX_RESPONSE_BYTES:
                    raise ScorerFailed(f"the verifier {self.url} sent more than {MAX_RESPONSE_BYTES} bytes")
            return response.status, content


def host_of(url: str) -> str:
    """The host and port that a URL leads to, as an administrator allows it. Raises ValueError for what is no URL."""
    if len(url) > MAX_URL_LENGTH or not (url.isascii() and url.isprintable()):
        raise ValueError(f"expected a URL of at most {MAX_URL_LENGTH} printable ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ValueError("expected a URL such as https://verifier.example:8443/score, without a user or password")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _score(url: str, content: bytes) -> float:
    try:
        value = json.loads(content)["score"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(value)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise ScorerFailed(f'the verifier {url} must answer with JSON such as {{"score": 0.7}}') from None
    return float(value)


async def _make(options: HttpScorer, context: ScorerContext) -> Verifier:
    host = host_of(options.url)
    if host not in context.allowed_hosts:
        there = ", ".join(sorted(context.allowed_hosts)) or "none"
        raise ScorerRefused(
            f"the host {host} is not one that this server's administrator allows as a verifier; allowed: {there}. "
            "They are set with --verifier HOST:PORT",
            "url",
        )
    return Verifier(context.client, options.url, context.messages, options.timeout_s)


SPEC = ScorerSpec("http", HttpScorer, _make)
