"""What stands at the edges of an answer: quotes and styling come in pairs, anything else means something."""

import pytest

from tests.answers.keys import key_of


@pytest.mark.parametrize(
    "answers",
    [
        ("5'", '5"', "5"),
        ("f'", "f''", "f"),
        ("x'", "x''", "x"),
        ("A'", "A", "A*"),
        ("5*", "5"),
        ("!true", "true"),
        ("?", "!"),
    ],
    ids=lambda answers: answers[0],
)
def test_a_mark_after_an_answer_makes_another_answer(answers: tuple[str, ...]) -> None:
    assert len({key_of(answer) for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("'yes'", "yes"),
        ("“yes”", "Yes!"),
        ("**Yes**", "*yes*."),
        ("**Yes", "yes**"),
        ("__5__", "5"),
        ("`x+1`", "1+x"),
        ("«oui»", "oui"),
        ('"**Paris**".', "Paris"),
    ],
)
def test_quotes_and_styling_around_an_answer_do_not(a: str, b: str) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize(("a", "b"), [("IV", "VI"), ("XL", "LX"), ("AL", "LA"), ("CO", "OC"), ("NE", "EN")])
def test_an_answer_of_a_few_capitals_is_text(a: str, b: str) -> None:
    assert key_of(a) != key_of(b)
    assert key_of(a) == key_of(rf"\text{{{a}}}")
