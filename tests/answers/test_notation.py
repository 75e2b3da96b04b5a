"""Ways to write formulas that are easily misread."""

import pytest

from tests.answers.keys import key_of

SAME = [
    ("4/3 π", r"\frac{4}{3}\pi"),
    ("1/2 x", r"\frac{x}{2}"),
    ("π/2 x", r"\frac{\pi x}{2}"),
    (r"1/2\sqrt{3}", r"\frac{\sqrt3}{2}"),
    ("y = 1/2x + 3", r"y = \frac{1}{2}x+3"),
    (r"-1/2 x + 3", r"3-\frac12 x"),
    (r"\lfloor 5/2 \rfloor", "2"),
    (r"1/2 \cdot x", "x/2"),
    ("2 x 3", "6"),
    ("1.2 x 10^5", "120000"),
    (r"\begin{pmatrix}1\\[2mm]2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("0.6666666666666666", "2/3"),
    ("0.16666666666666666", "1/6"),
    ("3.3333333333333335", "10/3"),
    ("0.30000000000000004", "0.3"),
    ("e^(2x)", "e^{2x}"),
    ("2^(10)", "1024"),
    ("x^(1/2)", r"\sqrt{x}"),
    ("e^(-(x+1))", "e^{-x-1}"),
    (r"{3 \over 4}", "3/4"),
    (r"3\over 4", r"\nicefrac{3}{4}"),
    (r"{5 \choose 2}", r"\dbinom{5}{2}"),
    (r"{\bf 5}", r"\color{red}{5}"),
    (r"\underline{5}", "5"),
    (r"\mathcal{O}(n)", "O(n)"),
    (r"\mathbf{x}=5", "x=5"),
    ("∛2", r"\sqrt[3]{2}"),
    (r"0.\dot3", "1/3"),
    (r"0.\dot{1}4285\dot{7}", "1/7"),
    (r"3\colon4", "3:4"),
    ("(1,2) U (3,4)", "(1,2)∪(3,4)"),
    ("1、2、3", "1,2,3"),
    ("[[1,2],[3,4]]", r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}"),
]

DIFFERENT = [
    (r"\frac{dy}{dx} = 2x", r"\frac{dy}{dx} = 3x"),
    (r"\frac{dy}{dx} = 2x", "0"),
    (r"\frac{d^2y}{dx^2} = 1", r"\frac{d^2y}{dx^2} = 2"),
    ("dy/dx = 2x", "y = 2x^2"),
    ("4/3 π", "4/(3π)"),
    ("1/2 x", "1/(2x)"),
    ("1/2x", "1/(2x)"),
    (r"1/2\sqrt{3}", r"\frac{1}{2\sqrt3}"),
    ("1.2 x 10^5", "1.2 x 10^6"),
    ("0.6666666666666", "0.6666666666666666"),
    ("0.666666666666667", "0.666666666666"),
    ("1.000000000000001", "1"),
    ("0.999999999999999", "1"),
    ("f^(4)(x)", "f^4(x)"),
    ("[[1,2],[3,4]]", "[[1,3],[2,4]]"),
    ("[1,2;3,4]", "[1,2,3,4]"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_a_formula_is_read_as_people_mean_it(a: str, b: str) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_and_as_nothing_else(a: str, b: str) -> None:
    assert key_of(a) != key_of(b)
