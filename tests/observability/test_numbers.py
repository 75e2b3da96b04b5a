import pytest

from kinetics_serve.observability.numbers import dollars_for_people, for_people


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (17_234_356_333, "17.2 G"),
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.7, "1 k"),
        (0.25, "0.25"),
        (4e13, "40 T"),
        (999_999_999, "1 G"),
        (10**40, "1e+10 Q"),
    ],
)
def test_a_number_has_three_digits_and_a_prefix(number: float, shown: str) -> None:
    assert for_people(number) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0.00412, "$0.0041"),
        (0.004, "$0.004"),
        (12.345, "$12.35"),
        (0.000019, "$0.000019"),
        (0.5, "$0.50"),
        (0, "$0"),
        (1234, "$1234.00"),
    ],
)
def test_an_amount_of_money_has_no_exponent(amount: float, shown: str) -> None:
    assert dollars_for_people(amount) == shown
