import json
from collections.abc import AsyncIterator

import pytest

from kinetics_serve.engine.errors import EngineLost
from kinetics_serve.requests.disconnect import telling


async def broken() -> AsyncIterator[bytes]:
    yield b"data: {}\n\n"
    raise EngineLost("the engine broke off")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_stream_that_breaks_off_ends_with_the_envelope(path: str) -> None:
    *_, told, done = b"".join([event async for event in telling(path, broken())]).split(b"\n\n")[:-1]
    assert "broke off" in json.loads(told.removeprefix(b"data: "))["error"]["message"]
    assert done == b"data: [DONE]"


async def test_anthropics_clients_are_told_by_an_event_of_that_name() -> None:
    told = b"".join([event async for event in telling("/v1/messages", broken())]).split(b"\n\n")[-2]
    name, data = told.split(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["type"] == "error"
