"""The chunks of a streamed completion, as far as we read them: checked while they are decoded, the rest skipped."""

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class PromptDetails(msgspec.Struct):
    cached_tokens: Tokens | None = None


class Usage(msgspec.Struct):
    """Of one sample so far."""

    prompt_tokens: Tokens = 0
    completion_tokens: Tokens | None = None
    prompt_tokens_details: PromptDetails | None = None


class FunctionPiece(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class CallPiece(msgspec.Struct):
    """Of a tool call."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None


class Candidate(msgspec.Struct):
    logprob: float | None = None


class TokenLogprobs(msgspec.Struct):
    """Of a chat completion."""

    logprob: float | None = None
    top_logprobs: list[Candidate] | None = None


class Logprobs(msgspec.Struct):
    """No more of them than confidence needs."""

    content: list[TokenLogprobs] | None = None
    """Of a chat completion."""
    top_logprobs: list[dict[str, float | None] | None] | None = None
    """Of a completion."""


L = TypeVar("L")


class Choice(msgspec.Struct, Generic[L]):
    """Of a chat completion, with a delta, or of a completion, with a text."""

    delta: Delta | None = None
    text: str | None = None
    logprobs: L | None = None
    finish_reason: str | None = None
    stop_reason: Any = None


class Chunk(msgspec.Struct, Generic[L]):
    choices: list[Choice[L]] = []
    usage: Usage | None = None
    error: Any = None
    """What a server says in the place of a token when it fails."""

    @property
    def ends(self) -> bool:
        return any(choice.finish_reason for choice in self.choices)  # some servers say "" while a sample goes on


Json = dict[str, Any]
AnyChunk = Chunk[Logprobs] | Chunk[Json]
Decoder = msgspec.json.Decoder[list[Chunk[Logprobs]]] | msgspec.json.Decoder[list[Chunk[Json]]]

BRIEF = msgspec.json.Decoder(list[Chunk[Logprobs]])
WITH_LOGPROBS = msgspec.json.Decoder(list[Chunk[Json]])
"""For clients that want to see all of them, which takes twice the time."""


def decode(texts: Sequence[bytes], decoder: Decoder = BRIEF) -> tuple[Sequence[AnyChunk], str | None]:
    """The chunks up to the first text that is none, and what is wrong with that."""
    try:
        chunks = decoder.decode(b"[%b]" % b",".join(texts))  # all at once takes less time than one by one
        if len(chunks) == len(texts):  # else two texts that are no chunks made one that is
            return chunks, None
    except (ValueError, RecursionError):
        pass
    found: list[AnyChunk] = []
    for text in texts:
        try:
            (chunk,) = decoder.decode(b"[%b]" % text)
        except (ValueError, RecursionError) as error:  # says what was expected where, and nothing of what was there
            return found, str(error)
        found.append(chunk)
    return found, None
