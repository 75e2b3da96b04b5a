"""Streams in pieces of any size, with anything in them."""

import time

from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.engine.server_sent_events import DataWatch, EventSplitter, data_of

LINES = st.one_of(
    st.sampled_from([b"", b"data: x", b"data:x", b"data", b"data:", b": note", b"event: e", b"id: 7", b"other: y"]),
    st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
    st.text(max_size=10).map(lambda text: b"data: " + text.replace("\r", "").replace("\n", "").encode()),
)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Of one kind of line end, or of all mixed."""
    ends = draw(st.one_of(LINE_ENDS.map(st.just), st.just(LINE_ENDS)))
    return b"".join([line + draw(ends) for line in draw(st.lists(LINES, max_size=12))]) + draw(st.binary(max_size=8))


@st.composite
def split(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def read(pieces: list[bytes]) -> tuple[bytes, list[bytes]]:
    """All bytes that come out, and the data."""
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    events.append(splitter.rest())
    return b"".join(events), [data for event in events if (data := data_of(event)) is not None]


def by_the_standard(stream: bytes) -> list[bytes]:
    """The data of every event, by WHATWG's algorithm, line by line; of an unfinished last one too."""
    found: list[bytes] = []
    data: list[bytes] = []
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    for line in [*lines, b""]:
        if not line:
            found += [b"\n".join(data)] if data else []
            data = []
        name, _, value = line.partition(b":")
        if name == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
    return found


@given(st.data())
def test_no_byte_is_lost_and_the_data_are_the_same_however_a_stream_is_split(data: st.DataObject) -> None:
    stream = data.draw(streams())
    out, events = read(data.draw(split(stream)))
    assert out == stream
    assert events == read([stream])[1]
    if not any(line.startswith(b"\xef\xbb\xbf") for line in stream.splitlines()):
        assert events == by_the_standard(stream)


@given(st.data())
def test_bytes_of_any_kind_raise_nothing(data: st.DataObject) -> None:
    stream = data.draw(st.binary(max_size=200))
    assert read(data.draw(split(stream)))[0] == stream


@given(st.data())
def test_a_watch_counts_each_line_of_data_where_it_ends_and_nothing_else(data: st.DataObject) -> None:
    stream = data.draw(streams())
    watch = DataWatch()
    seen = sum(watch.sees(piece) for piece in data.draw(split(stream)))
    ends = max(stream.rfind(b"\n"), stream.rfind(b"\r"))
    whole = stream[: ends + 1].replace(b"\r", b"\n").split(b"\n")
    assert seen == sum(line.startswith(b"data:") for line in whole)


def test_several_lines_of_data_are_one_text() -> None:
    assert read([b'data: {"a":\ndata: 1}\n\n'])[1] == [b'{"a":\n1}']


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert read([b"\xef\xbb\xbfdata: x\n\n"])[1] == [b"x"]


def test_a_long_event_takes_time_by_its_length() -> None:
    """What is quadratic takes seconds, in which nobody else is answered."""
    splitter = EventSplitter()
    began = time.process_time()
    pieces = [b"data: ", *[b"x" * 16_384] * 900, b"\n", b"\n"]
    events = [event for piece in pieces for event in splitter.feed(piece)]
    assert events == [b"".join(pieces)]
    assert time.process_time() - began < 1
