"""In simulated time, for which no machine is too busy."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol

from benchmarks.fleet.clock import simulate
from kinetics_serve.engine.patient_reader import PatientReader


def simulated(test: Callable[[aiohttp.StreamReader], Awaitable[None]]) -> Callable[[], None]:
    """The test with the content of an answer to read."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        await test(aiohttp.StreamReader(protocol, 1 << 16, loop=loop))

    return lambda: simulate(scenario())


@simulated
async def test_what_has_come_is_read_at_once_and_nothing_at_the_end(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content, 9)
    content.feed_data(b"a")
    content.feed_data(b"b")
    assert await reader.read() == b"ab"
    content.feed_eof()
    assert await reader.read() == b""
    reader.close()


@simulated
async def test_a_silence_longer_than_told_ends_the_read(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content, 0.01)
    with pytest.raises(TimeoutError):
        await reader.read()


@simulated
async def test_after_progress_it_may_be_given_less_time(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content, 600)
    content.feed_data(b"a")
    assert await reader.read() == b"a"
    reader.progressed(0.01)
    with pytest.raises(TimeoutError):
        await reader.read()
    assert asyncio.get_running_loop().time() == pytest.approx(0.01)


@simulated
async def test_bytes_without_progress_give_no_more_time(content: aiohttp.StreamReader) -> None:
    reader = PatientReader(content, 0.5)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(1, 100):
        loop.call_later(0.1 * number, content.feed_data, b".")

    async def read_all() -> None:
        for _ in range(100):
            await reader.read()

    with pytest.raises(TimeoutError):
        await read_all()
    assert loop.time() - begun == pytest.approx(0.5)


@simulated
async def test_each_progress_gives_the_whole_time_and_what_happens_between_reads_counts_for_none(
    content: aiohttp.StreamReader,
) -> None:
    reader = PatientReader(content, 1.1)
    for piece in (b"a", b"b"):
        await asyncio.sleep(1.2)
        asyncio.get_running_loop().call_later(0.5, content.feed_data, piece)
        assert await reader.read() == piece
        reader.progressed(1.1)
    reader.close()
