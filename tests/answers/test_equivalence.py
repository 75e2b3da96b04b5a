import pytest

from kinetics_serve.answers.equivalence import mathematically_equal, quickly_equal


@pytest.mark.parametrize(
    ("a", "b"),
    [("56", "56.0"), ("1/2", "0.5"), ("1,000", "1000"), ("Paris", " paris. "), ("ＡＢＣ", "abc"), ("-3", "-3.00")],
)
def test_plain_answers_are_compared_without_computer_algebra(a: str, b: str) -> None:
    assert quickly_equal(a, b, "auto") is True


@pytest.mark.parametrize(("a", "b"), [("56", "57"), ("1/2", "0.51"), ("Paris", "Lyon"), ("Paris", "12"), ("1/0", "x")])
def test_plain_answers_that_differ_are_told_apart_without_it_too(a: str, b: str) -> None:
    assert quickly_equal(a, b, "auto") is False


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5 am", "5 pm"),
        ("12 km", "12 m"),
        ("2024-01-02", "2024-02-01"),
        ("10:30", "1:3"),
        ("B2", "2B"),
        ("5%", "5"),
    ],
)
def test_what_computer_algebra_would_misread_is_compared_as_text(a: str, b: str) -> None:
    assert quickly_equal(a, b, "auto") is False


def test_formulas_are_left_to_computer_algebra() -> None:
    assert quickly_equal(r"\frac12", "0.5", "auto") is None
    assert quickly_equal("x+y", "y+x", "math") is None
    assert quickly_equal(r"\frac12", "0.5", "text") is False


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (r"\frac12", "0.5", True),
        (r"\frac{1}{2}", "1/2", True),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\sqrt{2}", "1.41", False),
        ("3", "4", False),
    ],
)
def test_math_verify_decides_the_rest(a: str, b: str, equal: bool) -> None:
    assert mathematically_equal(a, b) is equal
