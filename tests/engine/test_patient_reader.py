import asyncio

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from kinetics_serve.engine.patient_reader import PatientReader


@pytest.fixture
async def content() -> aiohttp.StreamReader:
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    protocol.connection_made(asyncio.Transport())
    return aiohttp.StreamReader(protocol, 1 << 16, loop=loop)


async def test_what_has_come_is_read_at_once_and_nothing_at_the_end(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content)
    content.feed_data(b"a")
    content.feed_data(b"b")
    assert await reader.read(9) == b"ab"
    content.feed_eof()
    assert await reader.read(9) == b""
    reader.close()


async def test_a_silence_longer_than_told_ends_the_read(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content)
    with pytest.raises(TimeoutError):
        await reader.read(0.01)


async def test_a_later_read_may_be_given_less_time_than_the_first(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content)
    content.feed_data(b"a")
    assert await reader.read(600) == b"a"
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await reader.read(0.01)


async def test_each_read_has_its_whole_time_and_what_happens_between_them_counts_for_none(
    content: aiohttp.StreamReader,
) -> None:
    reader = PatientReader(content)
    for piece in (b"a", b"b"):
        await asyncio.sleep(1.2)
        asyncio.get_running_loop().call_later(0.5, content.feed_data, piece)
        assert await reader.read(1.1) == piece
    reader.close()
