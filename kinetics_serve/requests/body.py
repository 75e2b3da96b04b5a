"""Reading a request's body: bounded, strict JSON."""

import asyncio
import codecs
import json
from typing import Any

import orjson
import pydantic_core
from fastapi import Request

from kinetics_serve.requests.errors import ApiError, invalid
from kinetics_serve.requests.media import check_media
from kinetics_serve.requests.services import Settings

Json = dict[str, Any]


async def read(request: Request, settings: Settings) -> bytes:
    """The body. Raises ApiError 413 as soon as it is known to be too large, and 408 where it is too long in coming."""
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            return await _read(request, settings.max_body_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {settings.body_timeout_s:g} s"
        raise ApiError(408, "invalid_request", message, headers={"connection": "close"}) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    too_large = ApiError(413, "invalid_request", f"the request is larger than the {max_bytes} bytes allowed")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, settings: Settings) -> tuple[bytes, Json]:
    """The body and the JSON object in it, which names no media that vLLM may not fetch. Raises ApiError.

    The body is as it came, but for a byte order mark, which vLLM passes over too.
    """
    content = (await read(request, settings)).removeprefix(codecs.BOM_UTF8)
    body = parse(content)
    check_media(body, content, settings.media_hosts)
    return content, body


def parse(content: bytes) -> Json:
    """The JSON object in `content`; NaN, Infinity and numbers beyond a double are no JSON. Raises ApiError 400."""
    try:
        body = pydantic_core.from_json(content, allow_inf_nan=False)  # bounds the depth, keeps whole numbers exact
        orjson.loads(content)  # refuses 1e400 and the like, which the other takes for infinity
    except ValueError as error:
        raise invalid(f"the body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise invalid(f"the body must be a JSON object, not {type(body).__name__}")
    return body


def dump(body: Json) -> bytes:
    """`body` as bytes to send on."""
    return json.dumps(body).encode()
