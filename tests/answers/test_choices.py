import time

import pytest

from kinetics_serve.answers.choices import choice
from kinetics_serve.answers.options import choice_of, options_of

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
        "A. " * 30_000,
        "so it is " * 10_000,
        "wait " * 20_000,
        "*" * 100_000,
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


POINTS = "Points A and B lie on a line.\nA: (0,0)\nB: (3,4)\nFind the distance AB."
SUMS = "Solve both:\nA) 2+2\nB) 3+3\nGive the sum of both results."
CURRENTS = "What is the current?\nA) 5 A\nB) 10 A\nC) 15 A\nD) 20 A"
CHANCES = "How likely is it?\n(A) 1/2 (B) 1/4 (C) 1/8 (D) 3/4"
PRIME = "Is 7 prime?\nA. Yes\nB. No\nC. Maybe"
CAPITALS = "Which is the capital?\nA. Paris\nB. Paris, Texas\nC. London\nD. All of the above"
VIRUS = "Which virus?\nA. Hepatitis A\nB. Influenza\nC. Hepatitis B\nD. None"
TEX = r"$\textbf{(A)}\ 12 \qquad \textbf{(B)}\ 15 \qquad \textbf{(C)}\ 18$"
SMALL = "Find the sum of digits.\na) 12\nb) 15\nc) 18"


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (POINTS, r"The distance from A to B is \boxed{5}."),
        (POINTS, "Using A and B, AB = 5. #### 5"),
        (POINTS, "The distance from A to B is 5."),
        (SUMS, r"A gives 4 and B gives 6, so \boxed{10}."),
        (SUMS, "A gives 4 and B gives 6. The answer is 10."),
    ],
)
def test_a_box_or_mark_that_is_no_option_is_left_to_other_extractors(question: str, text: str) -> None:
    assert choice_of(options_of(question))(text) is None


@pytest.mark.parametrize(
    ("question", "text", "letter"),
    [
        (CURRENTS, "The current is 10 A.", "B"),
        (CURRENTS, "I = 15 A", "C"),
        (CURRENTS, "The answer is 20 A", "D"),
        (CURRENTS, r"\boxed{10\text{ A}}", "B"),
        (CURRENTS, r"\boxed{10}", "B"),
        (CURRENTS, "The current is 5 A, so D.", "D"),
        (CURRENTS, "15 A is what you'd get in series, but in parallel we get 10 A.", "B"),
        (CHANCES, r"\boxed{B}", "B"),
        (CHANCES, r"\boxed{\frac14}", "B"),
        (CHANCES, r"\boxed{0.25}", "B"),
        (CHANCES, "1/4", "B"),
        (CHANCES, "So the answer is 1/8 = (1/2)^3, i.e. (C)", "C"),
        (PRIME, "Yes, it is prime. No divisor exists.", "A"),
        (PRIME, "No, it is not.", "B"),
        (CAPITALS, "Paris, Texas", "B"),
        (CAPITALS, "London is not the capital; Paris is.", "A"),
        (VIRUS, "C. Hepatitis B", "C"),
        (VIRUS, "**C: Hepatitis B**", "C"),
        (VIRUS, "The answer is C. Hepatitis B", "C"),
        (VIRUS, "(C). Option (A) is foodborne.", "C"),
        (VIRUS, "C\n\nOption A is wrong because it is a picornavirus; B is the flu.", "C"),
        (TEX, r"\boxed{15}", "B"),
        (TEX, r"\boxed{\textbf{(C)}\ 18}", "C"),
        (TEX, "The answer is 12.", "A"),
        (SMALL, "b) 15", "B"),
        (SMALL, r"\boxed{b}", "B"),
        (SMALL, "The answer is c", "C"),
        (SMALL, "18", "C"),
    ],
)
def test_an_option_is_named_by_its_value_and_no_unit_is_a_letter(question: str, text: str, letter: str) -> None:
    assert choice_of(options_of(question))(text) == letter


def test_the_parts_of_a_question_are_no_options() -> None:
    assert options_of("Let n = 5.\na) Find 2n.\nb) Find 3n.\nc) What is n squared?") == ()


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("**D**\n\nExplanation: option A ignores friction; option C is too big.", "D"),
        ("D) 12\n\nBecause A) is 10.", "D"),
        ("D is correct. Option A is a distractor.", "D"),
        ("Option C is correct, while option D is not.", "C"),
        ("A is correct because B is a subset.", "A"),
        ("I would choose B over A", "B"),
        ("B. By Newton's law F = ma", "B"),
        ("We conclude B, as F = ma.", "B"),
        ("It's C, caused by E. coli", "C"),
        ("E. coli is the cause, thus C", "C"),
        (r"\boxed{\text{C. Plan A}}", "C"),
        ("c", "C"),
        ("(c)", "C"),
        ("c)", "C"),
        ("c.", "C"),
        ("The answer is B\n\nWait, no. It's C.", "C"),
        ("The answer is B. Wait, is it C? No.", "B"),
        ("The answer is B\n\nTherefore A is too small.", "B"),
        ("A. The cat\nB. The dog\nSo B", "B"),
        ("A: no. B: yes.", "B"),
        ("B. 5 A", "B"),
        ("A is correct. B is incorrect. Therefore B.", "B"),
        ("(B) is correct as (A) gives 3 and (D) gives 5.", "B"),
        ("故选B。", "B"),
        ("选C，因为A错", "C"),
        ("答えはBです。", "B"),
        ("La respuesta correcta es la B", "B"),
        ('{"answer": "B", "reason": "Option A is too low"}', "B"),
    ],
)
def test_the_letter_that_a_text_begins_with_or_concludes_stands_above_those_it_mentions(text: str, letter: str) -> None:
    assert choice(text) == letter
