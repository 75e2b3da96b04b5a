"""Server-sent events in any pieces and with any line ends."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.passthrough.events import Event, split

TEXTS = st.binary(min_size=1, max_size=8).filter(lambda text: not {10, 13} & set(text))
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def events_of(pieces: list[bytes]) -> list[Event]:
    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[Event]:
        return [event async for events in split(come()) for event in events]

    return asyncio.run(collect())


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[begin:end] for begin, end in pairwise(ends)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_no_byte_is_lost_or_changed(stream: bytes, places: list[int]) -> None:
    assert b"".join(event.raw for event in events_of(cut(stream, places))) == stream


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"data: x"])), st.lists(st.integers(0, 50)))
def test_streams_of_line_ends_lose_nothing_either(parts: list[bytes], places: list[int]) -> None:
    stream = b"".join(parts)
    assert b"".join(event.raw for event in events_of(cut(stream, places))) == stream


@given(st.lists(TEXTS), LINE_ENDS, st.data())
def test_events_are_found_whatever_their_line_ends_and_pieces(
    texts: list[bytes], end: bytes, data: st.DataObject
) -> None:
    stream = b"".join(b"event: e" + end + b"data:" + text + end + end for text in texts)
    places = data.draw(st.lists(st.integers(0, len(stream))))
    found = [event for event in events_of(cut(stream, places)) if event.data or event.name]
    assert [event.data for event in found] == [text.removeprefix(b" ") for text in texts]
    assert all(event.name == b"e" for event in found)


def test_lines_of_data_are_joined_and_other_fields_passed_over() -> None:
    event = Event(b": comment\nid: 7\ndata: {\ndata: }\nevent: named\n\n")
    assert (event.data, event.name, event.json()) == (b"{\n}", b"named", {})
