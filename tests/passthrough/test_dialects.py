"""What is read off the streams of vLLM's APIs."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Price
from kinetics_serve.passthrough.dialects import UNSHOWN_TOKENS, Completions, Dialect, Messages, Responses
from kinetics_serve.passthrough.events import Event
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
        assert dialect.read_event(Event(content), metered) == content
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


NUMBERS = st.none() | st.integers(-5, 2**70) | st.text(max_size=3) | st.booleans() | st.floats(allow_nan=False)
KEYS = (
    *("type", "index", "choices", "usage", "delta", "text", "message", "response", "prompt_tokens"),
    *("completion_tokens", "cached_tokens", "prompt_tokens_details", "input_tokens", "output_tokens"),
    *("input_tokens_details", "cache_read_input_tokens"),
)
ANY = st.recursive(
    NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)
MESSAGES = ("message_start", "message_delta", "content_block_delta", "message_stop")
KINDS = st.sampled_from([*MESSAGES, "response.completed", "response.failed", "response.output_text.delta", "error"])
DIALECTS = [
    lambda: Completions({}, {}),
    lambda: Completions({"include_usage": True}, {}),
    lambda: Responses({}),
    lambda: Messages({}),
]


@pytest.mark.parametrize("made", DIALECTS)
@given(kind=KINDS, value=ANY, named=st.booleans())
def test_whatever_an_engine_says_something_between_nothing_and_the_reservation_is_charged(
    made: Any, kind: str, value: Any, named: bool
) -> None:
    dialect, metered = made(), tab()
    if isinstance(value, dict) and not named:
        value = value | {"type": kind}
    data = json.dumps(value).encode()
    event = Event((f"event: {kind}\n" if named else "").encode() + b"data: " + data + b"\n\n")
    dialect.read_event(event, metered)
    dialect.is_last(event)
    assert 0 <= metered.spent() <= metered.reserved
    dialect.read_answer(data, metered)
    assert 0 <= metered.spent() <= metered.reserved


@pytest.mark.parametrize("usage", [None, {}, [], "3", {"completion_tokens": -1, "prompt_tokens": 10}])
def test_an_answer_that_does_not_tell_its_usage_is_charged_what_was_reserved(usage: Any) -> None:
    for dialect in (Completions({}, {}), Responses({}), Messages({})):
        metered = tab()
        dialect.read_answer(json.dumps({"usage": usage}).encode(), metered)
        assert metered.spent() == metered.reserved


@pytest.mark.parametrize("usage", [None, {"completion_tokens": "3"}, {"completion_tokens": None}])
def test_a_choice_that_does_not_tell_its_usage_counts_as_long_as_it_may_become_until_one_does(usage: Any) -> None:
    dialect, metered = Completions({}, {}), tab()
    metered.accepted()
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": usage}
    dialect.read_event(Event(b"data: " + json.dumps(chunk).encode() + b"\n\n"), metered)
    assert metered.spent() == metered.reserved
    chunk["usage"] = {"completion_tokens": 3, "prompt_tokens": 10}
    dialect.read_event(Event(b"data: " + json.dumps(chunk).encode() + b"\n\n"), metered)
    assert PRICE.longest(10, metered.spent(), limit=MOST) == 3


def test_a_message_may_tell_its_prompt_at_the_beginning_and_its_output_at_the_end() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 4, "output_tokens": 1}}}
    end = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}}
    metered = tab()
    dialect = Messages({})
    for event in (start, end):
        dialect.read_event(Event(b"data: " + json.dumps(event).encode() + b"\n\n"), metered)
    assert PRICE.longest(4, metered.spent(), limit=MOST) == 3
    alone = tab()
    Messages({}).read_event(Event(b"data: " + json.dumps(end).encode() + b"\n\n"), alone)
    assert PRICE.longest(10, alone.spent(), limit=MOST) == 3, "the prompt is as long as it was reserved for"


def test_details_of_null_are_no_details() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "input_tokens_details": None}
    metered = tab()
    Responses({}).read_answer(json.dumps({"usage": usage}).encode(), metered)
    assert PRICE.longest(10, metered.spent(), limit=MOST) == 3


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("first", [False, True])
def test_usage_that_the_client_did_not_ask_for_is_left_out_however_it_is_spaced(
    separators: tuple[str, str], first: bool
) -> None:
    usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}}
    rest: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": ',"usage":{}'}}]}
    chunk = usage | rest if first else rest | usage
    event = Event(b"data: " + json.dumps(chunk, separators=separators).encode() + b"\r\n\r\n")
    passed = Completions({}, {}).read_event(event, tab())
    assert json.loads(Event(passed).data) == rest
    assert passed.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", [False, 0, "false"])
def test_reasoning_that_is_hidden_is_not_told_of_token_by_token(value: Any) -> None:
    assert not Completions({}, {"include_reasoning": value}).counts_tokens
    metered = tab()
    shown = {"type": "response.output_text.delta", "delta": "a word"}
    Responses({"include_reasoning": value}).read_event(Event(b"data: " + json.dumps(shown).encode() + b"\n\n"), metered)
    assert metered.spent() == metered.reserved


def test_a_stream_that_tells_of_many_tokens_at_a_time_is_not_followed() -> None:
    assert Completions({}, {"include_reasoning": True, "stream_interval": 1}).counts_tokens
    assert not Completions({}, {"stream_interval": 1000}).counts_tokens


@pytest.mark.parametrize("body", [{}, {"tools": [{}]}])
def test_of_a_stream_that_breaks_off_is_charged_what_was_shown(body: dict[str, Any]) -> None:
    metered, dialect = tab(), Responses(body)
    shown = {"type": "response.output_text.delta", "delta": "seven"}
    dialect.read_event(Event(b"data: " + json.dumps(shown).encode() + b"\n\n"), metered)
    dialect.broke_off(metered)
    assert PRICE.longest(10, metered.spent(), limit=MOST) == 5


def test_what_is_nested_without_end_is_no_text() -> None:
    nested = b'{"delta":' * 400 + b'"x"' + b"}" * 400
    Responses({}).read_event(Event(b"event: response.output_text.delta\ndata: " + nested + b"\n\n"), tab())


INNER = {"index": 0, "logprobs": {"top_logprobs": [{"usage": None, "x": -0.2}]}, "delta": {"usage": {"a": 1}, "b": 2}}
USED = {"prompt_tokens": 20, "completion_tokens": 3}


@pytest.mark.parametrize(
    "chunk", [{"choices": [INNER]}, {"choices": [INNER], "usage": USED}, {"usage": USED, "choices": [INNER]}]
)
def test_only_a_chunks_own_usage_is_left_out(chunk: dict[str, Any]) -> None:
    event = Event(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    passed = Event(Completions({}, {}).read_event(event, tab()))
    assert passed.json() == {"choices": [INNER]}
    if "usage" not in chunk:
        assert passed.raw == event.raw


def test_usage_that_the_client_asked_for_arrives_with_a_last_choice_too() -> None:
    """From an engine that does not tell of it in every chunk, whatever it is asked."""
    asking = Completions({"include_usage": True}, {})
    for chunk in ({"choices": [{"index": 0}]}, {"choices": [{"index": 0, "finish_reason": "stop"}], "usage": USED}):
        event = Event(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        assert asking.read_event(event, tab()) == event.raw
