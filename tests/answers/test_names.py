"""Values with names: which names count, and what "and" and "or" join."""

import pytest

from tests.answers.keys import key_of

SAME = [
    ("(r,h) = (2,3)", "r=2, h=3"),
    ("(r,h) = (2,3), (4,5)", "(r,h) = (4,5), (2,3)"),
    (r"\text{Alice}=3, \text{Bob}=5", "Bob = 5, Alice = 3"),
    ("AB=3, BC=4", "|BC| = 4, |AB| = 3"),
    (r"\angle A=30^\circ, \angle B=60^\circ", r"m\angle B=60^\circ, m\angle A=30°"),
    ("x=1, AB=3", "AB = 3, x = 1"),
    ("f(x) = x, f(x) = 2x", "2x, x"),
    ("x=1, y=2 or x=3, y=4", "(3,4), (1,2)"),
    ("x=1 and y=2", "x=1, y=2"),
    ("x=1; y=2", "x=1, y=2"),
    ("x=1, y=2; x=3, y=4", "(3,4), (1,2)"),
    (r"\{x=1, x=2\}", "1, 2"),
    ("x = 1 and x = 2", "1, 2"),
    ("x = 1 or 2", "1, 2"),
    ("x_1 = 1 or x_2 = 2", "1, 2"),
    ("2x = 4 or 3x = 9", "2, 3"),
    ("x<1, x>2", r"(-\infty,1), (2,\infty)"),
    ("A, B or C", "C or B or A"),
    (r"(-\infty, 1) \text{ or } (2, \infty)", r"(-\infty, 1) \cup (2, \infty)"),
    (r"\frac{dy}{dx} = 2x", "2x"),
]

DIFFERENT = [
    ("(r,h) = (2,3)", "h=2, r=3"),
    ("(y,x) = (1,2)", "x=1, y=2"),
    (r"\text{Alice}=3, \text{Bob}=5", "Alice=5, Bob=3"),
    ("mean = 4, median = 5", "mean = 5, median = 4"),
    ("width = 3 cm, length = 5 cm", "width = 5 cm, length = 3 cm"),
    ("gcd = 6, lcm = 12", "gcd = 12, lcm = 6"),
    ("AB=3, BC=4", "AB=4, BC=3"),
    ("f(1)=2, f(2)=3", "f(1)=3, f(2)=2"),
    (r"\angle A=30^\circ, \angle B=60^\circ", r"\angle A=60^\circ, \angle B=30^\circ"),
    ("x=1, AB=3", "x=3, AB=1"),
    ("AB=3, CD=4, x=1", "AB=4, CD=3, x=1"),
    ("AB=3; BC=4", "AB=4; BC=3"),
    (r"\{AB=3, BC=4\}", r"\{AB=4, BC=3\}"),
    ("x=1, n=2, 2a=4", "x=2, n=1, 2a=4"),
    ("x>1, y<2", "x<2, y>1"),
    ("x=1, y=2, x=3, y=4", "x=1, y=4, x=3, y=2"),
    ("max = 5", "min = 5"),
    ("profit = 5", r"\text{loss} = 5"),
    (r"p \land q", r"p \lor q"),
    (r"p \wedge q", r"p \vee q"),
    ("A and B", "A or B"),
    ("x=1 and y=2", "x=1 or y=2"),
    ("x=1 or n=2", "x=2 or n=1"),
    ("x > 1 and y < 2", "x > 1 or y < 2"),
    ("x+y=3 and x-y=1", "x+y=3 or x-y=1"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_values_with_the_same_names_are_one_answer(a: str, b: str) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_values_with_other_names_or_joined_otherwise_are_another_answer(a: str, b: str) -> None:
    assert key_of(a) != key_of(b)
