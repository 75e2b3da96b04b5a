"""A client's own program, over HTTP: it gets the question and a sample, and answers with a score."""

import asyncio
import json
from dataclasses import dataclass
from math import isfinite
from urllib.parse import urlsplit

import aiohttp

from kinetics_serve.cost import ZERO, Cost
from kinetics_serve.engine.upstream import Json
from kinetics_serve.scorers.scorer import Score, ScorerFailed

TRIES = 3
FIRST_PAUSE_S = 0.25
"""Before the next try; doubled each time."""

MAX_RESPONSE_BYTES = 64 << 10
MAX_URL_LENGTH = 8192


@dataclass(frozen=True, slots=True)
class Verifier:
    """Costs no eFLOPs: what it does is not this server's compute. timeout_s: of each try."""

    client: aiohttp.ClientSession
    url: str
    messages: list[Json]
    timeout_s: float
    first_pause_s: float = FIRST_PAUSE_S

    def worst_case(self, tokens: int) -> Cost:
        return ZERO

    async def score(self, text: str, answer: str | None, tokens: int) -> Score:
        problem = ""
        for number in range(TRIES):
            if number:
                await asyncio.sleep(self.first_pause_s * 2 ** (number - 1))
            try:
                async with asyncio.timeout(self.timeout_s):
                    status, content = await self._post({"messages": self.messages, "text": text, "answer": answer})
            except aiohttp.ClientError as error:
                problem = f"{type(error).__name__}"
                continue
            except TimeoutError:
                problem = f"no answer within {self.timeout_s:g} s"
                continue
            if status == 200:
                return Score(_score(self.url, content))
            problem = f"HTTP {status}"
            if status < 500 and status not in (408, 429):
                break
        raise ScorerFailed(f"the verifier {self.url} gave no score: {problem} (tried {number + 1} times)")

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
    except (ValueError, KeyError, TypeError, OverflowError):
        raise ScorerFailed(f'the verifier {url} must answer with JSON such as {{"score": 0.7}}') from None
    return float(value)
