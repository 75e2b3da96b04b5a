import pytest

from kinetics_serve.observability.numbers import for_people


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
