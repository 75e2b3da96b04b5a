"""A budgeted request's answer, whole or as the chunks of a stream."""

import time
import uuid
from importlib.metadata import version
from typing import Any

from kinetics_serve.budgeted import bill
from kinetics_serve.budgeted.execution import Execution
from kinetics_serve.sources.completion import ChatCompletion, Completion
from kinetics_serve.strategies.state import Sample, Status

Json = dict[str, Any]

_OPENAI: Json = {"system_fingerprint": f"kinetics-serve-{version('kinetics-serve')}", "service_tier": "default"}
_MESSAGE: Json = {"refusal": None, "annotations": []}
"""What OpenAI's clients may look for in every answer, and in its message."""


TAIL_CHARACTERS = 80
"""Of what a sample says, in progress: it is sent again and again, so it is no more than a line."""


class Answer:
    """What an execution has to say, in OpenAI's words."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._run = execution.run
        self._chat = execution.prompt.completion is ChatCompletion
        self._id = f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    @property
    def model(self) -> str:
        return self._run.arms[bill.answering_arm(self._run)].model

    def response(self) -> Json:
        """The answer of a request that is not streamed."""
        return {
            "id": self._id,
            "object": "chat.completion" if self._chat else "text_completion",
            "created": self._created,
            "model": self.model,
            **_OPENAI,
            "choices": [self._choice()],
            "usage": bill.usage(self._run),
            "kinetics": self._bill(),
        }

    def _choice(self) -> Json:
        choice = self._winner().choice()
        return choice | {"message": _MESSAGE | choice["message"]} if self._chat else choice

    def progress(self) -> Json:
        """A chunk that says how far the request is. It has no choices: clients take every choice for text that came."""
        tail_of = self._tail_of if self._execution.options.include_samples else None
        return self._chunk([], kinetics=bill.progress(self._run, tail_of))

    def chunks(self) -> list[Json]:
        """The winner as a stream's chunks, the bill on the last that has a choice."""
        choices = self._winner().deltas()
        chunks = [self._chunk([choice]) for choice in choices[:-1]]
        chunks.append(self._chunk(choices[-1:], kinetics=self._bill()))
        if self._execution.prompt.include_usage:
            chunks.append(self._chunk([], usage=bill.usage(self._run)))
        return chunks

    def _bill(self) -> Json:
        options = self._execution.options
        text_of = self._text_of if options.include_samples else None
        kind_of = self._execution.reader.domain
        meaning = options.answer.meaning.kind if options.answer.meaning is not None else None
        forces, notes = bool(options.answer.force_tokens), self._execution.notes
        return bill.bill(self._run, options.scorer.kind, forces, meaning, text_of, kind_of, notes)

    def _text_of(self, sample: Sample) -> str:
        completion = self._execution.completion_of(sample)
        return completion.text if completion is not None else ""

    def _tail_of(self, sample: Sample) -> str:
        completion = self._execution.completion_of(sample)
        return completion.tail(TAIL_CHARACTERS) if completion is not None else ""

    def _winner(self) -> Completion:
        assert self._run.finish is not None
        winner = self._run.finish.winner
        ranked = [self._run.samples[winner]] if winner is not None else self._without_text()
        completions = filter(None, map(self._execution.completion_of, ranked))
        return next(completions, None) or self._execution.prompt.new_completion()

    def _without_text(self) -> list[Sample]:
        """Where no sample has any: those that ended by themselves, then those that were cut off. A model may have
        thought, refused, or called no function, and said nothing else.
        """
        order = (Status.FINISHED, Status.TRUNCATED, Status.STOPPED, Status.CANCELLED)
        return sorted(
            [each for each in self._run.samples if each.status in order], key=lambda each: order.index(each.status)
        )

    def _chunk(self, choices: list[Json], **more: Any) -> Json:
        return {
            "id": self._id,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "created": self._created,
            "model": self.model,
            **_OPENAI,
            "choices": choices,
            **more,
        }
