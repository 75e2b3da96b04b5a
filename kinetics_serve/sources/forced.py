"""Samples that ran out of tokens are asked for their answer, so that they vote too."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from kinetics_serve.answers.reader import Reader
from kinetics_serve.cost import Cost, KVPolicy, Price
from kinetics_serve.engine.errors import EngineNonsense, EngineRejected
from kinetics_serve.engine.route import Route
from kinetics_serve.engine.upstream import Json
from kinetics_serve.engine.usage import cached, reported
from kinetics_serve.errors import KineticsError
from kinetics_serve.runner.run import Ended, Extra
from kinetics_serve.sources.completion import ChatCompletion, Completion
from kinetics_serve.sources.live import LiveSource
from kinetics_serve.strategies.state import Sample, Status

CUE = "\n\nThe final answer is"
MARGIN_TOKENS = 32
"""Of the cue, the end of the thinking and the template around them."""

TOKENS_PER_TOKEN = 1.25
"""Text that is tokenized again may come to a few more tokens than were generated."""


@dataclass(frozen=True, slots=True)
class Forcing:
    """What forcing an answer of at most force_tokens costs."""

    price: Price
    kv: KVPolicy
    prompt_tokens: int
    force_tokens: int
    context: int
    """The most tokens that the model takes."""

    def limit(self, tokens: int) -> int:
        """The most tokens of the prompt that ends in a sample of `tokens` tokens; vLLM cuts off what exceeds it."""
        wanted = self.prompt_tokens + int(TOKENS_PER_TOKEN * tokens) + MARGIN_TOKENS
        return max(1, min(wanted, self.context - self.force_tokens))

    def worst_case(self, tokens: int) -> Cost:
        return self.price.sample(self.limit(tokens), self.force_tokens, self.kv)

    def settle(self, tokens: int, usage: Json) -> tuple[Cost, int]:
        """By what the engine reports, and how many tokens it generated."""
        prompt = reported(usage, "prompt_tokens", self.limit(tokens))
        generated = reported(usage, "completion_tokens", self.force_tokens)
        return self.price.sample(prompt, generated, self.kv, cached_tokens=cached(usage, prompt)), generated


class ForcedSource:
    """A live source whose cut-off samples get an answer: their thinking is closed, and the model goes on after a cue.

    Budget forcing, as s1 has it (arXiv 2501.19393).
    """

    def __init__(self, source: LiveSource, route: Route, body: Json, forcing: Forcing, reader: Reader) -> None:
        self._source = source
        self._route = route
        self._body = body
        self._forcing = forcing
        self._reader = reader

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Extra | Ended, None]:
        async with aclosing(self._source.sample(sample)) as events:
            async for event in events:
                if not isinstance(event, Ended) or event.status is not Status.TRUNCATED or event.empty:
                    yield event
                    continue
                worst = Extra(forced=self._forcing.worst_case(event.tokens))
                yield worst  # until it is known, should the request end meanwhile
                try:
                    yield await self._forced(event, self._source.completions[sample.index])
                except EngineRejected:  # refused, so nothing was generated; it stays what it is, cut off
                    yield event
                except KineticsError:  # it stays what it is, cut off, and pays what the attempt may have cost
                    yield event._replace(extra=worst)

    async def _forced(self, end: Ended, completion: Completion) -> Ended:
        asked = forced_body(self._body, completion) | {
            "max_tokens": self._forcing.force_tokens,
            "truncate_prompt_tokens": self._forcing.limit(end.tokens),
            "truncation_side": "left",
        }
        response = await self._route.ask(lambda upstream: upstream.post(completion.path, asked))
        try:
            choice, usage = response["choices"][0], response["usage"]
            text = (choice.get("message") or {}).get("content") or choice.get("text") or ""
            said = CUE + text
            cost, tokens = self._forcing.settle(end.tokens, usage)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EngineNonsense("the engine's answer is not a completion") from error
        completion.extend(said)
        label, _ = await self._reader.read(said)
        status = Status.FINISHED if label is not None else Status.TRUNCATED
        return end._replace(status=status, answer=label, extra=Extra(forced=cost, forced_tokens=tokens))


def forced_body(body: Json, completion: Completion) -> Json:
    """The client's request, to go on from what a sample said."""
    dropped = (
        *("max_completion_tokens", "min_tokens", "stop", "n", "seed"),
        *("stream", "stream_options", "logprobs", "top_logprobs"),
    )
    sent = {key: value for key, value in body.items() if key not in dropped} | {"temperature": 0}
    said = completion.transcript + CUE
    if isinstance(completion, ChatCompletion):
        messages = [*body["messages"], {"role": "assistant", "content": said}]
        return sent | {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
    return sent | {"prompt": body["prompt"] + said}


def extra_of(*costs: Callable[[int], Cost] | None) -> Callable[[int], Cost] | None:
    """The sum of what is reserved with a sample beside its own generation, see Arm.extra."""
    stated = [cost for cost in costs if cost is not None]
    return (lambda tokens: sum([cost(tokens) for cost in stated], Cost())) if stated else None
