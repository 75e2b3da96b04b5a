"""Samples of one request from a vLLM server, with their answers and scores."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from kinetics_serve.answers.reader import Reader
from kinetics_serve.engine.chunks import AnyChunk
from kinetics_serve.engine.errors import EngineNonsense, EngineRejected, EngineUnavailable
from kinetics_serve.engine.route import Route
from kinetics_serve.observability.request_id import request_id
from kinetics_serve.runner.run import Ended, interval_of
from kinetics_serve.sources.completion import Completion
from kinetics_serve.strategies.state import Sample, Status

Json = dict[str, Any]

WHOLE = ("stop", "tool_calls")
"""Finish reasons of a sample that said all it wanted to."""

GIVEN_UP = ("abort", "error")
"""Finish reasons of a sample that the engine failed."""

UNCOUNTED = 16
"""Chunks without a token of their own, such as the end of a tool call, that a sample of max_tokens may have."""

SEED_RANGE = 2**64
"""vLLM's seeds are signed 64-bit integers."""


class LiveSource:
    """A `runner.live.Source` over HTTP.

    prompt_tokens: what the prompt was priced at. body: the client's request, as it may be sent on, without streaming
    and length fields. Each sample is a request of its own, so that it can be cancelled; a client's seed gives
    sample i the seed + i. stream_interval: see Run. A sample that failed before its first token is tried again where
    `route` leads; what one that failed later may have cost, it has yielded before it raises.
    """

    def __init__(
        self,
        route: Route,
        body: Json,
        prompt_tokens: int,
        new_completion: Callable[[], Completion],
        reader: Reader,
        statistic: str,
        stream_interval: int = 1,
    ) -> None:
        self.completions: dict[int, Completion] = {}
        self._route = route
        self._body = body
        self._prompt_tokens = prompt_tokens
        self._new_completion = new_completion
        self._reader = reader
        self._statistic = statistic
        self._stream_interval = stream_interval

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        if (name := request_id.get()) is not None:  # in this sample's task only
            request_id.set(f"{name}-{sample.index}")
        if not self.completions:  # the first sample: what else is under way counts from now on
            self._route.choose()
        opened = False
        try:
            while True:
                completion = self.completions[sample.index] = self._new_completion()
                upstream = self._route.upstream
                try:
                    body = self._sample_body(sample, completion)
                    async with upstream.stream(completion.path, body, completion.decoder) as chunks:
                        if not opened:
                            yield 0
                            opened = True
                        async for arrived in chunks:
                            told = _counted(completion)
                            try:
                                goes_on = self._add(completion, arrived, sample)
                            finally:  # what came before a chunk that makes no sense costs too
                                if _counted(completion) > told:
                                    yield min(_counted(completion), sample.max_tokens)
                            if not goes_on:
                                break
                    break
                except EngineUnavailable as error:
                    if _counted(completion):  # another server would begin again, and cost again
                        raise
                    self._route.move(upstream, error)
            if completion.prompt_tokens == 0:
                raise EngineNonsense("the engine reports no usage in its streams, so nothing can be billed")
            if completion.finish_reason in GIVEN_UP:
                raise EngineUnavailable(f"the engine gave the sample up: {completion.finish_reason}")
        except EngineNonsense:
            yield sample.max_tokens  # for all that is known
            raise
        yield await self._ended(completion, sample)

    def _add(self, completion: Completion, chunks: Sequence[AnyChunk], sample: Sample) -> bool:
        """Takes in chunks that arrived together. Whether the sample goes on."""
        for chunk in chunks:
            used = (chunk.usage and chunk.usage.completion_tokens) or 0
            if used > sample.max_tokens or completion.least_tokens > sample.max_tokens + UNCOUNTED:
                completion.cut(sample.max_tokens)
                return False
            try:
                completion.add(chunk)
            except ValueError as error:
                raise EngineNonsense(f"the engine's stream is not one of completion chunks: {error}") from error
            if completion.prompt_tokens > self._prompt_tokens:
                raise EngineRejected(
                    400,
                    f"the engine counts {completion.prompt_tokens} tokens in the prompt where its /tokenize counted "
                    f"{self._prompt_tokens}, so the budget can't be kept: leave out what the chat template adds "
                    "beyond the messages",
                )
            if completion.confidence.below(sample.floor):
                return False
        return True

    def _sample_body(self, sample: Sample, completion: Completion) -> Json:
        body = self._body | {
            "max_tokens": sample.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "stream_interval": interval_of(sample, self._stream_interval),
            "n": 1,
        }
        if completion.path == "/v1/chat/completions":
            body |= {"logprobs": True, "top_logprobs": completion.wanted_logprobs}
        else:
            body |= {"logprobs": completion.wanted_logprobs}
        if body.get("seed") is not None:
            body["seed"] = (body["seed"] + sample.index + SEED_RANGE // 2) % SEED_RANGE - SEED_RANGE // 2
        return body

    async def _ended(self, completion: Completion, sample: Sample) -> Ended:
        stopped = completion.confidence.below(sample.floor)
        whole = completion.finish_reason in WHOLE and not stopped
        read = await self._reader.read(completion.text, completion.tool_calls) if whole else None
        return Ended(
            status=Status.STOPPED if stopped else Status.FINISHED if whole else Status.TRUNCATED,
            tokens=min(_counted(completion), sample.max_tokens),
            cached_tokens=completion.cached_tokens,
            answer=read.label if read is not None else None,
            score=getattr(completion.confidence, self._statistic),
            empty=not completion.text.strip() and not completion.tool_calls,
            lowest=completion.confidence.worst_window,
            no_vote=read.no_vote if read is not None else None,
        )


def _counted(completion: Completion) -> int:
    """Tokens so far: by the server's count, or as many as there were at least."""
    return completion.tokens or completion.least_tokens
