"""Words that say numbers."""

import pytest

from kinetics_serve.answers.words import in_figures, order_or_division


@pytest.mark.parametrize(
    ("words", "figures"),
    [
        ("zero", "0"),
        ("Nineteen", "19"),
        ("ninety nine", "99"),
        ("a hundred", "100"),
        ("three hundred forty-two", "342"),
        ("one thousand and one", "1001"),
        ("two million three hundred thousand and five", "2300005"),
        ("negative seven eighths", "-7/8"),
        ("one and two thirds", "5/3"),
        ("two and a half cups", "5/2 cups"),
        ("a quarter", "1/4"),
        ("half cup", "1/2 cup"),
        (r"\text{six}", "6"),
        ("2.5 thousand", "2500"),
        ("3 hundred people", "300 people"),
        (r"4\text{ billion}", "4000000000"),
        ("12 out of 50", "12/50"),
        ("roughly 7", "7"),
        ("Infinity", r"\infty"),
    ],
)
def test_numbers_in_words_are_those_in_figures(words: str, figures: str) -> None:
    assert in_figures(words) == figures


@pytest.mark.parametrize(
    "text",
    [
        "one two three",
        "twenty eleven",
        "five twenty",
        "hundred",
        "nineteen eighty-four",
        "Seven Samurai",
        "one of the two",
        "half past two",
        "and five",
        "zero five",
        "0.0001 hundred",
        "5 thousandths",
        "third",
        "about time",
        "ten thousand million million million million million",
    ],
)
def test_what_is_no_number_stays(text: str) -> None:
    assert in_figures(text) == text


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Third", "3rd"),
        ("22ND", "22nd"),
        ("07 R 3", "7 R 3"),
        ("7, remainder 3", "7 R 3"),
        ("7 r", None),
        ("R 3", None),
    ],
)
def test_ordinals_and_quotients_with_remainder_have_one_form(text: str, form: str | None) -> None:
    assert order_or_division(text) == form
