import pytest

from kinetics_serve.answers.choices import choice_of, options_of

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
