"""Numbers as people read them."""

from math import floor, log10

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")


def for_people(number: float) -> str:
    """Three digits and an SI prefix: 17234356333 is "17.2 G", and 999 is "999"."""
    power = 0
    while abs(number) >= 999.5 and power < len(_PREFIXES) - 1:
        number /= 1000
        power += 1
    return f"{number:.3g} {_PREFIXES[power]}".rstrip()


def dollars_for_people(amount: float) -> str:
    """Two digits below a cent, cents above it, and no exponent: 0.00412 is "$0.0041", and 12.345 is "$12.35"."""
    if amount == 0:
        return "$0"
    places = max(2, 1 - floor(log10(abs(amount))))
    text = f"${amount:.{places}f}"
    return text if places == 2 else text.rstrip("0")
