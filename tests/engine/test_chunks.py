"""Chunks of every shape: read, or refused with a reason, and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.engine.chunks import BRIEF, WITH_LOGPROBS, Decoder, decode
from kinetics_serve.sources.completion import ChatCompletion, Completion, TextCompletion

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, ANYTHING)


def fields(**usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return mostly(st.fixed_dictionaries({}, optional={name: mostly(each) for name, each in usual.items()}))


FLOATS = st.floats(-20, 0)
TOKEN = fields(logprob=FLOATS, token=st.text(), top_logprobs=st.lists(fields(logprob=FLOATS), max_size=3))
CALL = fields(index=st.integers(0, 2), id=st.text(), function=fields(name=st.text(), arguments=st.text()))
CHOICE = fields(
    index=st.just(0),
    delta=fields(content=st.text(), reasoning=st.text(), refusal=st.text(), tool_calls=st.lists(CALL, max_size=2)),
    text=st.text(),
    finish_reason=st.sampled_from([None, "stop", "length"]),
    stop_reason=ANYTHING,
    logprobs=fields(
        content=st.lists(TOKEN, max_size=2), top_logprobs=st.lists(st.dictionaries(st.text(), FLOATS), max_size=2)
    ),
)
CHUNK = fields(
    choices=st.lists(CHOICE, max_size=2),
    usage=fields(
        prompt_tokens=st.integers(0, 9),
        completion_tokens=st.integers(0, 9),
        prompt_tokens_details=fields(cached_tokens=st.integers(0, 9)),
    ),
    error=ANYTHING,
    other=ANYTHING,
)


@pytest.mark.parametrize("decoder", [BRIEF, WITH_LOGPROBS])
@pytest.mark.parametrize("kind", [ChatCompletion, TextCompletion])
@pytest.mark.parametrize("top_logprobs", [None, 2])
@given(chunks=st.lists(CHUNK, max_size=4), noise=st.binary(max_size=10))
def test_every_chunk_is_read_or_refused_with_a_reason(
    decoder: Decoder, kind: type[Completion], top_logprobs: int | None, chunks: list[Any], noise: bytes
) -> None:
    texts = [*(json.dumps(chunk).encode() for chunk in chunks), noise]
    found, problem = decode(texts, decoder)
    assert problem is not None or len(found) == len(texts)
    fresh = kind(top_logprobs)
    for chunk in found:
        try:
            fresh.add(chunk)
        except ValueError:
            break
    assert fresh.tokens >= 0
    json.dumps([fresh.choice(), fresh.deltas(), fresh.text, fresh.transcript])


def test_two_texts_that_make_one_chunk_together_are_none() -> None:
    assert decode([b'{"choices": [], "a": [1', b"2]}"])[0] == []
