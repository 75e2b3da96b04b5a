"""Whether two answers are the same one. What follows from keys being equal (symmetry, order) needs no test."""

import pytest

from kinetics_serve.answers.equivalence import EquivalenceKind, domain, quick_key
from tests.answers.keys import key_of

SAME = {
    "decimals": ["7", "7.0", "07", "7.", " 7 ", "$7$", r"\(7\)", r"\boxed{7}", "+7"],
    "fractions": ["3/4", "0.75", r"\frac34", r"\frac{3}{4}", r"\dfrac{3}{4}", "¾", "75%", r"75\%", "6/8", ".75"],
    "mixed numbers": ["5/2", r"2\frac{1}{2}", "2 1/2", "2½", "2.5"],
    "thousands": ["12500", "12,500", r"12{,}500", "12 500", r"12\,500", r"12,\!500", "12’500"],
    "decimal commas": ["1000.99", "1000,99"],
    "leading zeros": ["0.25", "0,25"],
    "currency": ["$19.50", "19.5", r"\$19.50", "19.50 dollars"],
    "other currency": ["€5", "5 €", "5 euros"],
    "negatives": ["-5", "−5", "- 5", "–5"],
    "powers": ["10^5", "100000", r"1\times 10^5", "1e5", "10**5", "10⁵"],
    "repeating decimals": ["1/3", r"0.\overline{3}", "0.333...", "0.333333333333"],
    "factorials": ["4!", "24"],
    "roots": [r"\sqrt{8}", r"2\sqrt2", "√8", "sqrt(8)", r"\frac{4}{\sqrt{2}}", r"\sqrt{\sqrt{64}}"],
    "nested roots": [r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"],
    "cube roots": [r"\sqrt[3]{54}", r"3\sqrt[3]{2}"],
    "logarithms": [r"\log_2 8", r"\log_{2}{8}", "3"],
    "complex numbers": ["1+2i", "2i+1", r"\frac{5}{1-2i}"],
    "the imaginary unit": ["i", "1i", r"\sqrt{-1}"],
    "polynomials": ["x^2-1", "(x-1)(x+1)", "-1+x²"],
    "rational functions": [r"\frac{x^2-1}{x-1}", "x+1"],
    "trigonometry": [r"\sin(2x)", r"2\sin x\cos x"],
    "exponents": ["2^{n+1}", r"2\cdot 2^n"],
    "lists": ["1, 2, 3", "3,2,1", "1; 2; 3", "1, 2 and 3", r"1,2,\text{ and }3", r"\{3, 1, 2, 2\}", "{1,2,3}"],
    "plus or minus": [r"1\pm\sqrt3", r"1-\sqrt3, 1+\sqrt3", "1 ± √3"],
    "tuples": ["(1, 2)", "(1,2)", r"\left(1,2\right)", "(1; 2)", r"\langle 1, 2\rangle", "(2/2, 2)"],
    "half-open intervals": ["[0, 1)", r"\left[0,1\right)", r"0 \le x < 1", "1 > x ≥ 0", r"x \in [0,1)"],
    "rays": [r"x \le 3", r"(-\infty, 3]", "3 >= x", "-x ≥ -3", r"2x \leq 6"],
    "unions": [r"(-\infty,-2)\cup(2,\infty)", "x^2 > 4", r"(2,\infty)\cup(-\infty,-2)"],
    "matrices": [
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}",
        r"\left[\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}\right]",
    ],
    "the unknown": ["x = 5", "5", "x=5.0", "2x = 10", "x = 3 + 2 = 5", "n=5"],
    "function values": ["f(x) = x+4", "x+4"],
    "named values": ["x=2, y=3", "y = 3, x = 2", "(x,y)=(2,3)", r"x = 2 \text{ and } y = 3"],
    "lines": ["2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}", "4y = 3 - 2x"],
    "units": ["10 cm", "10 cm.", r"10\text{ cm}", r"10\ \mathrm{cm}", "10.0 centimeters"],
    "areas": [r"15\text{ cm}^2", "15 square centimeters", "15 cm^2"],
    "degrees": [r"90^\circ", "90°", "90 degrees", r"90^{\circ}"],
    "choices": ["(B)", "B", r"\text{(B)}", r"\boxed{\text{B}}", r"\textbf{(B)}", "B.", "B)", "(b)"],
    "words": ["Paris", "paris.", r"\text{Paris}", r"\mathrm{Paris}", '"Paris"', "**Paris**"],
    "more words": ["New York", "new  york", r"\text{New York}", r"New\ York"],
    "objects": ['{"a": 1, "b": [1, 2]}', '{"b":[1,2.0],"a":1.0}'],
    "ratios": ["3:2", "3 : 2"],
}

DIFFERENT = [
    ["1,2", "12", "1.2", "(1,2)", "[1,2]", "(2,1)"],
    ["3,5", "35", "3/5"],
    [r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", "0"],
    [r"\frac{1}{2004!}", r"\frac{1}{2006!}"],
    [r"10^{-200}", "0", r"2\cdot 10^{-200}"],
    [r"\pi", r"\pi+10^{-60}", "3.14159265358979", "22/7"],
    [r"\sqrt{2}", "1.41421356237", r"\sqrt{2}+10^{-60}", "1.4142"],
    ["1-1/e", "1+1/e", "1/e"],
    ["4", r"4\sqrt(2)", "42"],
    ["111_2", "111", "111_3"],
    ["1/3", "0.333", "0.3333", "0.34"],
    ["2/3", "0.6667", "0.67"],
    ["x+2n+1", "x+1", "x+n+1"],
    ["a = 3", "b = 3", "3"],
    ["x=2, y=3", "x=3, y=2"],
    [r"\pm 7", "7", "-7"],
    ["(0,1)", "[0,1)", "(0,1]", "[0,1]"],
    ["x > 3", "x < 3", r"x \ge 3"],
    ["A", "B", "a", "E", "e"],
    ["12 km", "12 m", "12"],
    ["5%", "5"],
    ["5 am", "5 pm", "5"],
    ["3:30", "3:30 PM", "3:31", "30"],
    ["10:30", "1:3"],
    ["2024-01-02", "2024-02-01", "2021"],
    ["10-15", "-5"],
    ["B2", "2B"],
    ["0x1F", "31"],
    ["yes", "no"],
    ["f(2) < f(1)", "f(1) < f(2)"],
    ["2B", "2b"],
    ["€5", "£5", "5"],
    [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", "(1,2)"],
    ['{"a": 1}', '{"a": 2}', '{"b": 1}'],
    ["12 13", "25"],
    ["3t", "3"],
    ["x'", "x"],
    ["6x + 7y", "6x + 7z"],
]


@pytest.mark.parametrize("name", SAME)
def test_one_answer_has_one_key_however_it_is_written(name: str) -> None:
    keys = {answer: key_of(answer) for answer in SAME[name]}
    assert len(set(keys.values())) == 1, keys


@pytest.mark.parametrize("answers", DIFFERENT, ids=lambda answers: answers[0])
def test_different_answers_have_different_keys(answers: list[str]) -> None:
    keys = {answer: key_of(answer) for answer in answers}
    assert len(set(keys.values())) == len(answers), keys


def test_no_answer_of_one_kind_is_one_of_another() -> None:
    keys = [key_of(answers[0]) for answers in SAME.values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("answer", "taken_for"),
    [
        ("7", "math"),
        (r"\frac12", "math"),
        ("(B)", "choice"),
        ("Paris", "text"),
        ('{"a": 1}', "json"),
        ("[1, 2]", "math"),
    ],
)
def test_a_key_says_what_its_answer_was_taken_for(answer: str, taken_for: str) -> None:
    assert domain(key_of(answer)) == taken_for


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        ("exact", "7", "7.0", False),
        ("text", "7", "7.0", False),
        ("text", "Paris", " paris.", True),
        ("choice", "B. Paris", "b", True),
        ("choice", "B: because", "(B)", True),
        ("choice", "B", "C", False),
        ("json", "[1, 2]", "[1.0,2]", True),
        ("json", "[1, 2]", "[2, 1]", False),
        ("json", '{"a": NaN}', '{"a": 1}', False),
        ("math", "A", "a", False),
    ],
)
def test_a_stated_equivalence_is_followed(kind: EquivalenceKind, one: str, other: str, same: bool) -> None:
    assert (key_of(one, kind) == key_of(other, kind)) is same


@pytest.mark.parametrize("answer", ["56", "1/2", "1,000", "(B)", "Paris", "the quick brown fox", "x" * 501])
def test_plain_answers_need_no_computer_algebra(answer: str) -> None:
    assert quick_key(answer, "auto") is not None
