from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kinetics_serve.engine.completion import ChatCompletion
from kinetics_serve.engine.live_source import LiveSource
from kinetics_serve.runner.answer_groups import AnswerGroups
from kinetics_serve.runner.math_pool import MathPool
from kinetics_serve.runner.run import Ended
from kinetics_serve.strategies.answers import number
from kinetics_serve.strategies.state import Sample, Status

CONFIDENCES = [6.0] * 20 + [2.0] * 20
"""Of the tokens, in nats: the model loses the thread in the middle."""


class Stream:
    """A route to a server that streams one token a chunk, and counts how many it was asked for."""

    def __init__(self) -> None:
        self.upstream = self
        self.sent = 0
        self.closed = False

    @asynccontextmanager
    async def stream(self, path: str, body: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        try:
            yield self._chunks()
        finally:
            self.closed = True

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        for confidence in CONFIDENCES:
            self.sent += 1
            token = {"token": "7 ", "logprob": -0.1, "top_logprobs": [{"token": "7 ", "logprob": -confidence}]}
            last = self.sent == len(CONFIDENCES)
            yield {
                "choices": [
                    {
                        "delta": {"content": "7 "},
                        "logprobs": {"content": [token]},
                        "finish_reason": "stop" if last else None,
                    }
                ],
                "usage": {"prompt_tokens": 9, "completion_tokens": self.sent},
            }


async def ended(stream: Stream, floor: float | None) -> Ended:
    groups = AnswerGroups("auto", MathPool().equal)
    source = LiveSource(stream, {}, 9, lambda: ChatCompletion(None, 16), number, groups, "mean")  # type: ignore[arg-type]
    *_, last = [event async for event in source.sample(Sample(0, 64, floor=floor))]
    assert isinstance(last, Ended)
    return last


async def test_a_sample_is_stopped_when_its_group_confidence_falls_below_its_floor() -> None:
    stream = Stream()
    end = await ended(stream, floor=4.9)
    # A group of 16 tokens with 5 of the doubtful ones is the first whose mean is below 4.9: (11 × 6 + 5 × 2) / 16.
    assert (end.status, end.tokens, end.answer) == (Status.STOPPED, 25, None)
    assert stream.sent == 25
    assert stream.closed


async def test_without_a_floor_it_runs_to_its_end_and_says_how_low_it_fell() -> None:
    stream = Stream()
    end = await ended(stream, floor=None)
    assert (end.status, end.tokens, end.answer) == (Status.FINISHED, 40, "7")
    assert end.lowest == 2.0
