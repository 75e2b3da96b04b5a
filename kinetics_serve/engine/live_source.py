"""Samples of one request from a vLLM server, with their answers and scores."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from kinetics_serve.engine.completion import Completion
from kinetics_serve.engine.upstream import Upstream
from kinetics_serve.runner.answer_groups import AnswerGroups
from kinetics_serve.runner.run import Ended
from kinetics_serve.strategies.answers import Extractor
from kinetics_serve.strategies.state import Sample, Status

Json = dict[str, Any]

WHOLE = ("stop", "tool_calls", "function_call")
"""Finish reasons of a sample that said all it wanted to."""

MAX_SEED = 2**63 - 1


class LiveSource:
    """A `runner.live.Source` over HTTP.

    body: the client's request, as it may be sent on, without streaming and length fields. Each sample is a request
    of its own, so that it can be cancelled; a client's seed gives sample i the seed + i.
    """

    def __init__(
        self,
        upstream: Upstream,
        body: Json,
        new_completion: Callable[[], Completion],
        extract: Extractor,
        groups: AnswerGroups,
        statistic: str,
    ) -> None:
        self.completions: dict[int, Completion] = {}
        self._upstream = upstream
        self._body = body
        self._new_completion = new_completion
        self._extract = extract
        self._groups = groups
        self._statistic = statistic

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        completion = self.completions[sample.index] = self._new_completion()
        body = self._sample_body(sample, completion)
        async with self._upstream.stream(completion.path, body) as chunks:
            yield 0
            async for chunk in chunks:
                before = completion.tokens
                completion.add(chunk)
                if completion.tokens > before:
                    yield completion.tokens
        yield await self._ended(completion)

    def _sample_body(self, sample: Sample, completion: Completion) -> Json:
        body = self._body | {
            "max_tokens": sample.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "n": 1,
        }
        if completion.path == "/v1/chat/completions":
            body |= {"logprobs": True, "top_logprobs": completion.wanted_logprobs}
        else:
            body |= {"logprobs": completion.wanted_logprobs}
        if body.get("seed") is not None:
            body["seed"] = (body["seed"] + sample.index) % MAX_SEED
        return body

    async def _ended(self, completion: Completion) -> Ended:
        whole = completion.finish_reason in WHOLE
        answer = self._extract(completion.text) if whole else None
        return Ended(
            status=Status.FINISHED if whole else Status.TRUNCATED,
            tokens=completion.tokens,
            cached_tokens=completion.cached_tokens,
            answer=await self._groups.label(answer) if answer is not None else None,
            score=getattr(completion.confidence, self._statistic),
            empty=not completion.text.strip() and completion.finish_reason != "tool_calls",
        )
