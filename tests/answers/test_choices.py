import time

import pytest

from kinetics_serve.answers.choices import choice, choice_of, options_of

QUESTION = """Which city is the capital of France?
A. Lyon
B) Paris
(C) New York
D: Rome"""


def test_the_options_of_a_question_are_read_off_it() -> None:
    assert [tuple(option) for option in options_of(QUESTION)] == [
        ("A", "Lyon"),
        ("B", "Paris"),
        ("C", "New York"),
        ("D", "Rome"),
    ]
    assert [option.text for option in options_of("Pick one: (A) 1 (B) 2 (C) 3")] == ["1", "2", "3"]


@pytest.mark.parametrize("question", ["What is 2+2?", "A. Smith has 3 pens.", "Vitamin B: what is it?", ""])
def test_other_questions_have_none(question: str) -> None:
    assert options_of(question) == ()


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is B.", "B"),
        (r"\boxed{\text{Paris}}", "B"),
        ("paris", "B"),
        ("It is surely Paris, the city of light", "B"),
        ("(A) is wrong; I choose (C).", "C"),
        ("The answer is E", None),
        ("no idea", None),
    ],
)
def test_an_option_is_named_by_its_letter_or_its_text(text: str, letter: str | None) -> None:
    assert choice_of(options_of(QUESTION))(text) == letter


@pytest.mark.parametrize(
    "text",
    [
        "The answer is" + " " * 100_000,
        "The answer is" + "\n" * 100_000 + "x",
        "A " * 50_000,
        "(A) is not " * 10_000,
        "answer" + "*" * 100_000,
        "option" + "\\text{" * 20_000,
    ],
)
def test_a_letter_is_looked_for_in_linear_time(text: str) -> None:
    started = time.process_time()
    choice(text)
    assert time.process_time() - started < 1  # what backtracks would take minutes


@pytest.mark.parametrize("question", ["A. x" + " " * 100_000 + "y", "A. x" + " B" * 50_000, "A. x " * 20_000])
def test_options_are_looked_for_in_linear_time(question: str) -> None:
    started = time.process_time()
    options_of(question)
    assert time.process_time() - started < 1


def test_an_option_ends_with_its_line_or_where_the_next_begins() -> None:
    options = options_of("Which? (A) The U.S. Senate (B)  two words\n C. three\n\nD) four\nThink first.")
    assert [option.text for option in options] == ["The U.S. Senate", "two words", "three", "four"]
