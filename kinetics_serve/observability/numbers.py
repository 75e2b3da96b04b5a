"""Numbers as people read them."""

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z", "Y", "R", "Q")


def for_people(number: float) -> str:
    """Three digits and an SI prefix: 17234356333 is "17.2 G", and 999 is "999"."""
    power = 0
    while abs(number) >= 999.5 and power < len(_PREFIXES) - 1:
        number /= 1000
        power += 1
    return f"{number:.3g} {_PREFIXES[power]}".rstrip()
