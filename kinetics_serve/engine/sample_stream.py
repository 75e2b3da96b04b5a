"""The stream of one sample, from its first byte to its end."""

from collections.abc import AsyncGenerator, Sequence

import aiohttp

from kinetics_serve.engine.answer_body import failure
from kinetics_serve.engine.chunks import AnyChunk, Chunk, Decoder, decode
from kinetics_serve.engine.errors import EngineNonsense, EngineUnavailable
from kinetics_serve.engine.patient_reader import PatientReader
from kinetics_serve.engine.server_sent_events import EventSplitter, EventTooLong, data_of

AFTERWARDS_S = 5.0
"""A sample that has ended waits no longer for its usage, and a stream for its `[DONE]`."""

AFTER_DONE_S = 0.1
"""Nothing but the connection's next use is waited for."""


async def chunks_of(
    reader: PatientReader, token_s: float, decoder: Decoder
) -> AsyncGenerator[Sequence[AnyChunk], None]:
    """The chunks, as many at a time as arrived together. token_s: the wait from one token to the next.

    A sample ends with its finish reason or with `[DONE]`. Of what follows a finish reason, usage is told and nothing
    else counts; what follows `[DONE]` is not looked at. Raises EngineUnavailable and EngineRejected for what the server
    says of this sample, and where it breaks off; what the reader raises, before its end.
    """
    splitter = EventSplitter()
    ended = done = False
    while True:
        try:
            piece = await reader.read()
            events = splitter.feed(piece) if piece else [splitter.rest()]
        except (TimeoutError, aiohttp.ClientError, EventTooLong):
            if not ended:
                raise
            piece, events = b"", [splitter.rest()]  # it said all that it had to say
        texts = [] if done else list(filter(None, map(data_of, events)))
        length = next((place for place, text in enumerate(texts) if text.strip() == b"[DONE]"), None)
        texts = texts[:length]
        ends = length is not None
        if not ended:
            chunks, problem = decode(texts, decoder)
            last = next((number for number, chunk in enumerate(chunks, 1) if chunk.error or chunk.ends), None)
            chunks = chunks[:last]
            error = chunks[-1].error if chunks else None
            if generated := chunks[:-1] if error else chunks:  # what came before a failure costs too
                yield generated
            if error:
                raise failure(error)
            if last is None and problem is not None:
                raise EngineNonsense(f"the engine's stream is not one of completion chunks: {problem}")
            if any(chunk.choices for chunk in chunks):
                reader.progressed(token_s)
            texts = texts[last:] if last is not None else []
            ends = ends or last is not None
        if usage := _usage(texts, decoder):
            yield usage
        if ends:  # the rest is read too, so that the connection can be used again
            ended, done = True, length is not None
            reader.progressed(AFTER_DONE_S if done else AFTERWARDS_S)
        if not piece:
            break
    if not ended:
        raise EngineUnavailable("the engine broke off in the middle of a sample")


def _usage(texts: Sequence[bytes], decoder: Decoder) -> list[AnyChunk]:
    """What the texts after a sample's end say of its usage."""
    found: list[AnyChunk] = []
    for text in texts:
        chunks, _ = decode([text], decoder)
        found += [Chunk(usage=chunk.usage) for chunk in chunks if chunk.usage is not None]
    return found
