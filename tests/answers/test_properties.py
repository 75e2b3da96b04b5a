"""Generated answers: written in any notation they are one, and a value is never another one."""

import json
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kinetics_serve.answers.structured import canonical, tool_calls
from tests.answers.keys import key_of

SLOW = settings(deadline=None, max_examples=40)

integers = st.integers(-(10**7), 10**7)
small = st.integers(1, 60)
terms = st.sampled_from(["1", "-2", "3/4", "0.5", r"\frac{7}{3}", r"\sqrt{2}", r"\pi", "2^{10}", "x+1", "1+2i"])


def notations(value: Fraction) -> list[str]:
    top, bottom = value.numerator, value.denominator
    sign, size = ("-" if top < 0 else ""), abs(top)
    ways = [
        f"{top}/{bottom}",
        f"{sign}\\frac{{{size}}}{{{bottom}}}",
        f"${top} / {bottom}$",
        f"\\boxed{{{top}/{bottom}}}",
    ]
    ways += [f"{2 * top}/{2 * bottom}", f"{sign}\\dfrac {{{size}}} {{{bottom}}}", f"x = {top}/{bottom}"]
    if bottom == 1:
        ways += [str(top), f"{top}.0", f"{top:,}", f"{top:,}".replace(",", "{,}"), f"{top}.", f"{sign}\\${size}"]
    if (100 * value).denominator == 1:
        ways += [f"{sign}{abs(100 * value)}%", f"{sign}{abs(100 * value)}\\%", f"{sign}{float(abs(value)):.2f}"]
    return ways


def two_of(ways: list[str]) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.sampled_from(ways), st.sampled_from(ways))


numbers = st.builds(Fraction, integers, small)


@SLOW
@given(numbers.flatmap(lambda value: two_of(notations(value))))
def test_a_number_is_the_same_in_every_notation(ways: tuple[str, str]) -> None:
    assert key_of(ways[0]) == key_of(ways[1])


@SLOW
@given(numbers, numbers, st.data())
def test_numbers_are_the_same_exactly_where_their_values_are(
    one: Fraction, other: Fraction, data: st.DataObject
) -> None:
    keys = [key_of(data.draw(st.sampled_from(notations(value)))) for value in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@SLOW
@given(st.lists(terms, min_size=2, max_size=4), st.randoms(), st.sampled_from([", ", "; ", ",", " and "]))
def test_a_list_is_a_set_whatever_separates_it(elements: list[str], random: Any, separator: str) -> None:
    shuffled = random.sample(elements, len(elements))
    assert key_of(separator.join(elements)) == key_of(r"\{" + ", ".join(shuffled) + r"\}")


@SLOW
@given(st.lists(terms, min_size=2, max_size=4), st.lists(terms, min_size=2, max_size=4))
def test_tuples_are_the_same_where_all_their_elements_are(one: list[str], other: list[str]) -> None:
    same = [key_of(each) for each in one] == [key_of(each) for each in other]
    assert (key_of(f"({', '.join(one)})") == key_of(rf"\left({' , '.join(other)}\right)")) is same


@SLOW
@given(st.tuples(integers, integers), st.sampled_from("[("), st.sampled_from(")]"))
def test_an_interval_is_its_inequality(ends: tuple[int, int], opening: str, closing: str) -> None:
    low, high = min(ends), max(ends) + 1
    left, right = ("<" if opening == "(" else r"\le"), ("<" if closing == ")" else "≤")
    assert key_of(f"{opening}{low}, {high}{closing}") == key_of(f"{low} {left} x {right} {high}")


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"))
def test_choices_are_the_same_where_their_letters_are(one: str, other: str) -> None:
    ways = ["{}", "({})", r"\text{{({})}}", r"\textbf{{{}}}", r"\boxed{{{}}}", "{}.", " {} "]
    keys = {key_of(way.format(one)) for way in ways}
    assert len(keys) == 1
    assert (keys == {key_of(other)}) is (one == other)


@SLOW
@given(integers, st.sampled_from(["cm", "kg", "km/h", "miles", "apples"]), st.sampled_from(["m", "g", "mph", "hours"]))
def test_units_make_other_answers(value: int, unit: str, other: str) -> None:
    assert key_of(f"{value} {unit}") == key_of(rf"{value}.0\text{{ {unit}}}")
    assert len({key_of(f"{value} {unit}"), key_of(f"{value} {other}"), key_of(str(value))}) == 3


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(min_size=1, max_size=3), values, min_size=1, max_size=3)


@given(objects, objects)
def test_json_is_the_same_where_its_values_are(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key_of(json.dumps(one, indent=2), "json") == key_of(json.dumps(one, ensure_ascii=False), "json")
    same = canonical(one) == canonical(other)
    assert (key_of(json.dumps(one), "json") == key_of(json.dumps(other), "json")) is same


@given(st.lists(st.tuples(st.text(min_size=1, max_size=4), objects), min_size=1, max_size=3), st.randoms())
def test_calls_are_the_same_in_any_order(made: list[tuple[str, dict[str, Any]]], random: Any) -> None:
    calls = [{"id": name, "function": {"name": name, "arguments": json.dumps(each)}} for name, each in made]
    assert tool_calls(calls) == tool_calls(random.sample(calls, len(calls)))
    assert tool_calls(calls) is not None


@given(st.text(max_size=60))
def test_every_text_has_a_key(text: str) -> None:
    assert key_of(text) == key_of(text)
