"""Values with units: every unit is read whole, and none is taken for another."""

import pytest

from tests.answers.keys import key_of

SAME = [
    (r"25\text{ cm^2}", "25 cm^2"),
    (r"25\text{ cm²}", "25 square centimeters"),
    (r"25\,\mathrm{cm}^{2}", "25 sq. cm"),
    (r"9.8\,\mathrm{m/s^2}", r"9.8\ \text{m/s}^2"),
    (r"9.8\,\mathrm{m/s^2}", "9.8 m/s²"),
    (r"9.8\,\text{m}/\text{s}^2", "9.8 m/s^2"),
    (r"5\,\mathrm{m\,s^{-1}}", "5 m/s"),
    (r"3\,\text{kg}\cdot\text{m}^2/\text{s}^2", r"3\,\mathrm{kg\cdot m^2/s^2}"),
    ("72 km/h", "72 kilometers per hour"),
    ("72 km/h", "72 kmh"),
    ("60 mph", "60 miles per hour"),
    ("5 lbs", "5 pounds"),
    ("5 hrs", "5 Hours"),
    ("5 ms", "5 milliseconds"),
    (r"20\,^\circ\text{C}", "20°C"),
    (r"20^{\circ}C", "20 degrees Celsius"),
    ("90^o", "90°"),
    ("12.5 per cent", "12.5%"),
    ("5 p.m.", "5 PM"),
    ("3:30 a.m.", "3:30 AM"),
    ("$1.5 million", "1.5 million dollars"),
    ("USD 12", "12"),
    ("12 US dollars", "$12"),
    ("EUR 12", "12 €"),
    ("1 3/4 cups", "1.75 cups"),
]

DIFFERENT = [
    (r"25\text{ cm^2}", r"25\text{ cm^3}", r"25\text{ cm}"),
    (r"9.8\,\mathrm{m/s^2}", "9.8 m/s"),
    (r"5\,\mathrm{mol\,L^{-1}}", r"5\,\mathrm{mol\,L}"),
    (r"3\text{ kg m^2}", r"3\text{ kg m}"),
    (r"30\text{ hours and 20 minutes}", r"30\text{ hours and 40 minutes}"),
    ("0.5 M", "0.5 m"),
    ("5 Mg", "5 mg", "5 g"),
    ("5 Mm", "5 mm", "5 m", "5 ms"),
    ("5 ML", "5 mL"),
    ("5 S", "5 s"),
    ("5 H", "5 h"),
    ("5 G", "5 g"),
    ("5 mN", "5 Nm"),
    ("3 MW", "3 mW"),
    ("5 yen", "5 yuan"),
    ("£5", "5 lbs"),
    ("2 m^4", "2 m"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_a_quantity_is_the_same_however_its_unit_is_written(a: str, b: str) -> None:
    assert key_of(a) == key_of(b)


@pytest.mark.parametrize("answers", DIFFERENT, ids=lambda answers: answers[0])
def test_other_units_make_other_answers(answers: tuple[str, ...]) -> None:
    assert len({key_of(answer) for answer in answers}) == len(answers)


def test_a_letter_at_a_number_is_a_factor() -> None:
    assert key_of("2m^4") == key_of("2 m^4") == key_of(r"2\cdot m^4")
