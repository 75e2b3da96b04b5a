"""The stream of one sample, from its first byte to its end."""

from collections.abc import AsyncGenerator, Sequence

import aiohttp

from kinetics_serve.engine.answer_body import failure
from kinetics_serve.engine.chunks import AnyChunk, Decoder, decode
from kinetics_serve.engine.errors import EngineNonsense, EngineUnavailable
from kinetics_serve.engine.patient_reader import PatientReader
from kinetics_serve.engine.server_sent_events import EventSplitter, data_of

AFTERWARDS_S = 5.0
"""A sample that has ended waits no longer for its usage, and a stream for its `[DONE]`."""

AFTER_DONE_S = 0.1
"""Nothing but the connection's next use is waited for."""


async def chunks_of(
    reader: PatientReader, token_s: float, decoder: Decoder
) -> AsyncGenerator[Sequence[AnyChunk], None]:
    """The chunks, as many at a time as arrived together. token_s: the wait from one token to the next.

    A sample ends with its finish reason, whatever follows, or with `[DONE]`. Raises EngineUnavailable and
    EngineRejected for what the server says of this sample, and where it breaks off; what the reader raises, before its
    end.
    """
    splitter = EventSplitter()
    ended = False
    while True:
        try:
            piece = await reader.read()
        except (TimeoutError, aiohttp.ClientError):
            if not ended:
                raise
            piece = b""  # it said all that it had to say
        events = splitter.feed(piece) if piece else [splitter.rest()]
        texts = list(filter(None, map(data_of, events)))
        done = bool(texts) and texts[-1].strip() == b"[DONE]"
        if done:
            texts.pop()
        chunks, problem = decode(texts, decoder)
        failed = next((number for number, chunk in enumerate(chunks) if chunk.error), len(chunks))
        if failed:  # what came before a failure was generated, so it costs
            yield chunks[:failed]
        if failed < len(chunks):
            raise failure(chunks[failed].error)
        if problem is not None:
            raise EngineNonsense(f"the engine's stream is not one of completion chunks: {problem}")
        ended = ended or done or any(chunk.ends for chunk in chunks)
        if not piece:
            break
        if ended:  # the rest is read too, so that the connection can be used again
            reader.progressed(AFTER_DONE_S if done else AFTERWARDS_S)
        elif any(chunk.choices for chunk in chunks):
            reader.progressed(token_s)
    if not ended:
        raise EngineUnavailable("the engine broke off in the middle of a sample")
