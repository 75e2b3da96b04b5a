from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from kinetics_serve.answers.algebra import MathPool
from kinetics_serve.answers.extract import number
from kinetics_serve.answers.groups import AnswerGroups
from kinetics_serve.answers.reader import Reader
from kinetics_serve.engine.chunks import Chunk, Logprobs
from kinetics_serve.engine.errors import EngineUnavailable
from kinetics_serve.runner.run import Ended
from kinetics_serve.sources.completion import ChatCompletion
from kinetics_serve.sources.live import LiveSource
from kinetics_serve.strategies.state import Sample, Status

CONFIDENCES = [6.0] * 20 + [2.0] * 20
"""Of the tokens, in nats: the model loses the thread in the middle."""


class Stream:
    """A route to a server that streams one token a chunk, and counts how many it was asked for.

    together: chunks that arrive at once. broken: the number of a chunk that makes no sense.
    """

    def __init__(self, together: int = 1, broken: int | None = None) -> None:
        self.upstream = self
        self.together = together
        self.broken = broken
        self.sent = 0
        self.asked: list[Any] = []
        self.closed = False

    @asynccontextmanager
    async def stream(self, path: str, body: Any, decoder: Any) -> AsyncIterator[AsyncIterator[list[Any]]]:
        self.asked.append(body)
        try:
            yield self._chunks()
        finally:
            self.closed = True

    async def _chunks(self) -> AsyncIterator[list[Any]]:
        while self.sent < len(CONFIDENCES):
            yield [self._chunk() for _ in range(self.together)]

    def _chunk(self) -> Any:
        confidence = CONFIDENCES[self.sent]
        self.sent += 1
        token = {"token": "7 ", "logprob": -0.1, "top_logprobs": [{"token": "7 ", "logprob": -confidence}] * 2}
        last = self.sent == len(CONFIDENCES)
        choice: dict[str, Any] = {
            "delta": {"content": "7 "},
            "logprobs": {"content": [token]},
            "finish_reason": "stop" if last else None,
        }
        chunk = {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": self.sent}}
        decoded = msgspec.convert(chunk, Chunk[Logprobs])
        if self.sent == self.broken:
            decoded.choices[0].logprobs = {"content": [7]}  # type: ignore[assignment]
        return decoded

    def choose(self) -> None:
        """There is one server."""

    def move(self, failed: "Stream", error: Exception) -> None:
        raise error


def source_of(stream: Stream) -> LiveSource:
    reader = Reader(number, AnswerGroups("auto", MathPool()))
    body = {"stream_interval": 100}  # what a client sends on is not for us to wait for
    return LiveSource(stream, body, 9, lambda: ChatCompletion(None, 16), reader, "mean", 8)  # type: ignore[arg-type]


async def ended(stream: Stream, floor: float | None) -> Ended:
    *_, last = [event async for event in source_of(stream).sample(Sample(0, 64, floor=floor))]
    assert isinstance(last, Ended)
    return last


@pytest.mark.parametrize("together", [1, 5, 8, 40])
async def test_a_sample_is_stopped_at_the_token_whose_group_falls_below_its_floor(together: int) -> None:
    stream = Stream(together)
    end = await ended(stream, floor=4.9)
    # A group of 16 tokens with 5 of the doubtful ones is the first whose mean is below 4.9: (11 × 6 + 5 × 2) / 16.
    assert (end.status, end.tokens, end.answer) == (Status.STOPPED, 25, None)
    assert stream.sent == -(-25 // together) * together
    assert stream.closed


async def test_without_a_floor_it_runs_to_its_end_and_says_how_low_it_fell() -> None:
    stream = Stream()
    end = await ended(stream, floor=None)
    assert (end.status, end.tokens, end.answer) == (Status.FINISHED, 40, "7")
    assert end.lowest == 2.0


@pytest.mark.parametrize(("floor", "interval"), [(None, 8), (4.9, 1)])
async def test_where_any_token_may_be_the_last_each_is_asked_for(floor: float | None, interval: int) -> None:
    stream = Stream()
    await ended(stream, floor)
    assert stream.asked[0]["stream_interval"] == interval


async def test_tokens_that_arrive_together_are_told_together() -> None:
    events = [event async for event in source_of(Stream(together=20)).sample(Sample(0, 64))]
    assert events[:-1] == [0, 20, 40]


def test_without_a_servers_count_as_many_tokens_came_as_have_log_probabilities() -> None:
    token = {"logprob": -0.1, "top_logprobs": [{"logprob": -0.1}] * 2}
    for number_of_logprobs, tokens in ((5, 5), (0, 1)):
        completion = ChatCompletion(None, 16)
        choice = {"delta": {"content": "a b c d e"}, "logprobs": {"content": [token] * number_of_logprobs}}
        completion.add(msgspec.convert({"choices": [choice]}, Chunk[Logprobs]))
        assert completion.least_tokens == tokens


async def test_tokens_that_arrive_with_a_chunk_that_makes_no_sense_are_told_before_the_failure() -> None:
    events = source_of(Stream(together=20, broken=27)).sample(Sample(0, 64))
    assert [await anext(events) for _ in range(4)] == [0, 20, 27, 64]  # the last is what it may have generated
    with pytest.raises(EngineUnavailable, match="completion chunks"):
        await anext(events)
