"""What a server's answers say: objects, and errors in its own words."""

import asyncio
from typing import Any

import aiohttp
import orjson

from kinetics_serve.engine.errors import EngineRejected, EngineUnavailable

Json = dict[str, Any]

REASON_WITHIN_S = 5.0

UNSUPPORTED = (501, 505)
"""What vLLM answers to a request for something that it has not implemented: no other server has it either."""


async def reason(response: aiohttp.ClientResponse) -> str:
    """Why the server refuses, in its own words."""
    try:
        async with asyncio.timeout(REASON_WITHIN_S):
            return _message(orjson.loads(await response.read()))
    except (ValueError, TimeoutError):
        return f"HTTP {response.status}"


def object_of(data: bytes) -> Json:
    try:
        value = orjson.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EngineUnavailable("the engine's answer is not the JSON object that vLLM sends")
    return value


def failure(error: Any) -> Exception:
    """What the server says in a stream, in the place of a token, of one sample."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) and code != 429 and (400 <= code < 500 or code in UNSUPPORTED):
        return EngineRejected(code, _message(error))  # vLLM checks some parameters only as it generates
    return EngineUnavailable(f"the engine failed: {_message(error)}")


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return str(error)
