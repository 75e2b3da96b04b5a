import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.answers.extract import extractor
from kinetics_serve.answers.structured import canonical, json_text, tool_calls

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "any", "type": "function", "function": {"name": name, "arguments": arguments}}


@given(VALUES)
def test_json_is_the_same_answer_however_it_is_written(value: Any) -> None:
    extract = json_text()
    assert extract(json.dumps(value, indent=3)) == extract(json.dumps(value, ensure_ascii=False)) == canonical(value)


@given(VALUES, VALUES)
def test_different_json_is_a_different_answer(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_ignored_fields_do_not_make_another_answer_at_any_depth() -> None:
    ignored = frozenset({"id", "note"})
    text = '{"a": [{"id": 1, "b": 2.0}], "note": "x"}'
    assert json_text(ignored)(text) == '{"a":[{"b":2}]}'


@pytest.mark.parametrize("text", ["", "no json", '{"a": ', "[" * 100_000])
def test_what_is_no_json_has_no_answer(text: str) -> None:
    assert json_text()(text) is None


def test_json_in_a_fence_counts() -> None:
    assert json_text()('Here:\n```json\n{"b": 1, "a": 2}\n```') == '{"a":2,"b":1}'


@pytest.mark.parametrize(
    "text",
    [
        'Sure! {"a": 1}',
        '```JSON\n{"a": 1}\n```',
        '```json5\n{"a": 1}\n```',
        '~~~json\n{"a": 1}\n~~~',
        '```json\n{"a": 1}\n',
    ],
)
def test_json_is_found_after_prose_and_in_any_fence(text: str) -> None:
    assert json_text()(text) == '{"a":1}'


def test_tool_calls_are_compared_by_name_and_arguments_whatever_their_order_and_ids() -> None:
    one = [call("f", '{"x": 1, "y": "a"}'), call("g", "")]
    other = [call("g", "{}") | {"id": "other"}, call("f", '{ "y":"a", "x":1.0}')]
    assert tool_calls(one) == tool_calls(other)
    assert tool_calls([call("f", "{}")]) != tool_calls([call("g", "{}")])
    assert tool_calls([call("f", '{"city": "Rome"}')]) != tool_calls([call("f", '{"city": "rome"}')])
    assert tool_calls([call("f", '{"q": 1, "t": 5}')], frozenset({"t"})) == tool_calls([call("f", '{"q": 1}')])


@pytest.mark.parametrize("arguments", ['{"x": ', "5", "null", "[1]", '{"x": NaN}', '{"x": Infinity}', "[" * 100_000])
def test_a_call_whose_arguments_are_no_json_object_is_none(arguments: str) -> None:
    assert tool_calls([call("f", "{}"), call("f", arguments)]) is None


def test_a_call_without_a_name_is_none() -> None:
    assert tool_calls([call("", "{}")]) is None
    assert tool_calls([{"id": "x", "function": {"arguments": "{}"}}]) is None
    assert tool_calls([{"id": "x"}]) is None


@pytest.mark.parametrize("text", ['{"a": NaN}', "Infinity", '```json\n{"a": -Infinity}\n```'])
def test_what_json_has_no_word_for_is_no_json(text: str) -> None:
    assert json_text()(text) is None


def test_the_json_extractor_is_one_of_the_family() -> None:
    assert extractor("json", None)('<think>{"a": 0}</think>{"a": 1}') == '{"a":1}'
