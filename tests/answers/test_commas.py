"""Which commas stand inside of a number."""

import pytest

from tests.answers.keys import key_of


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("12,50 €", "12.50 €"),
        ("€12,50", "€12.50"),
        ("12,50 €", "12.5 euros"),
        (r"12,50\,\text{€}", "12,50 €"),
        ("12,50 euros", "€12.50"),
        ("5,00 €", "5 €"),
        ("-3,50€", "-€3,50"),
        ("€1,234", "1234 €"),
    ],
)
def test_an_amount_may_have_a_decimal_comma(a: str, b: str) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize(
    ("a", "b"), [("5,00 €", "0 €, 5"), ("12,50 €", "12,05 €"), ("12, 50 €", "12.50 €"), ("1,5 km", "1.5 km")]
)
def test_other_commas_separate(a: str, b: str) -> None:
    assert key_of(a) != key_of(b)
