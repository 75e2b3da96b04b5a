"""What is read off the streams of vLLM's APIs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Price
from kinetics_serve.passthrough.dialects import UNSHOWN_TOKENS, Dialect, Messages, Responses
from kinetics_serve.passthrough.tab import Tab

PRICE = Price(Architecture("model", 100, 100, (AttentionLayers(1, 1, 1, 1),)), 0.0)
MOST = 10**6


def responses_delta(kind: str, text: str) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": text}


def messages_delta(kind: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", kind: text}}


def tab() -> Tab:
    return Tab(PRICE, DENSE, prompts=1, prompt_tokens=10, n=1, max_tokens=MOST)


def charged(dialect: Dialect, events: list[dict[str, Any]], ascii_only: bool = False) -> int:
    """The completion tokens that a client pays which leaves after these events."""
    metered = tab()
    for event in events:
        data = json.dumps(event, ensure_ascii=ascii_only, separators=(",", ":") if ascii_only else None)
        content = f"event: {event['type']}\ndata: {data}\n\n".encode()
        assert dialect.read_event(content, metered) == content
    return PRICE.longest(10, metered.spent(), limit=MOST)


@given(st.lists(st.tuples(st.booleans(), st.text(st.characters(codec="utf-8")))), st.booleans())
def test_a_token_for_every_byte_is_the_most_that_a_stream_can_have_shown(
    shown: list[tuple[bool, str]], ascii_only: bool
) -> None:
    least = sum(len(text.encode()) for _, text in shown)
    for dialect, events in (
        (Responses({}), [responses_delta("reasoning_text" if kind else "output_text", text) for kind, text in shown]),
        (Messages({}), [messages_delta("thinking" if kind else "text", text) for kind, text in shown]),
    ):
        if events:
            most = charged(dialect, events, ascii_only)
            assert least + UNSHOWN_TOKENS <= most
            if "".join(text for _, text in shown).isalnum() and not ascii_only:
                assert most == least + UNSHOWN_TOKENS


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "function", "name": "f"}]},
        {"logit_bias": {"7": 100}},
        {"ignore_eos": True},
        {"include_reasoning": False},
        {"stop": {"not": "a list"}},
    ],
)
def test_what_may_generate_unseen_is_charged_its_most(body: dict[str, Any]) -> None:
    assert charged(Responses(body), [responses_delta("output_text", "seen")]) == MOST
    assert charged(Messages(body), [messages_delta("text", "seen")]) == MOST


def test_text_that_may_become_a_stop_string_is_counted() -> None:
    events = [responses_delta("output_text", "seen")]
    assert charged(Responses({"stop": "END"}), events) == UNSHOWN_TOKENS + 4 + 3
    assert charged(Messages({"stop_sequences": ["é", "."]}), [messages_delta("text", "seen")]) == UNSHOWN_TOKENS + 4 + 2


def test_the_total_replaces_the_bound() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3}
    completed: dict[str, Any] = {"type": "response.completed", "response": {"usage": usage}}
    assert charged(Responses({}), [responses_delta("output_text", "seen"), completed]) == 3
    last: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    ended = [last, {"type": "message_stop"}]
    assert charged(Messages({}), [messages_delta("text", "seen"), *ended]) == 3


def test_text_that_is_repeated_whole_is_counted_once() -> None:
    done = {"type": "response.output_text.done", "output_index": 0, "text": "seen"}
    events = [responses_delta("output_text", "seen"), done]
    assert charged(Responses({}), events) == UNSHOWN_TOKENS + 4
