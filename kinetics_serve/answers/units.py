"""Units: which names mean one, and the canonical form of a product of powers of them."""

import re
from collections import Counter

_SYNONYMS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre cms",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre kms",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard yds",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram kilo kgs",
    "lb": "lbs pound",
    "oz": "ounce",
    "ml": "mL milliliter millilitre",
    "l": "L liter litre",
    "gal": "gallon",
    "s": "sec secs second",
    "ms": "millisecond",
    "min": "minute",
    "h": "hr hrs hour",
    "°": "degree deg degs",
    "°C": "celsius",
    "°F": "fahrenheit",
    "Hz": "hertz",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "Pa": "pascal",
    "mol": "mole",
    "K": "kelvin",
    "A": "ampere amp",
    "Ω": "ohm",
    "T": "tesla",
    "rad": "radian",
    "€": "euro EUR",
    "£": "GBP",
    "¥": "yen JPY",
    "yuan": "CNY RMB",
    "₹": "rupee INR Rs",
    "¢": "cent",
    "AM": "am",
    "PM": "pm",
    "%": "percent percentage pct",
    "": "dollar USD bucks",
}
_UNITS = {name: unit for unit, names in _SYNONYMS.items() for name in (unit, *names.split())}
_PREFIXED = re.compile("[kMGmnμ](?:Hz|N|J|W|V|Pa|A|eV|Ω)|[MG](?:m|g|s)")
"""With a capital, without which two letters are rather a product."""

SPELLED_OUT = 4
"""Letters of a name that is the same in capitals and in the plural."""

_PER_CENT = re.compile(r"(?<![A-Za-z])per\s+cent(?![A-Za-z])")
_PER = re.compile(r"(?<![A-Za-z])per(?![A-Za-z])|/")
_PER_HOUR = re.compile(r"(?<![A-Za-z])(?:(mph)|kmh|kmph|kph)(?![A-Za-z])")
_POWER_WORD = re.compile(r"(?<![A-Za-z])(?:(square|sq)|cubic|cu)(?:\.\s*|\s+)([A-Za-z]+)", re.I)
_US = re.compile(r"(?<![A-Za-z])US\s+(?=dollar)")
_TEMPERATURE = re.compile(r"(?:(?<![a-z])degrees?|°)\s*([CF])(?:elsius|ahrenheit)?(?![a-z])", re.I)
_FACTOR = re.compile(r"(°\s*[CF](?![A-Za-z])|[A-Za-zμΩ]+|[°€£¥₹¢%/])(?:\s*\^\s*\{?\s*(-?\d+)\s*\}?)?")
_TIMES = re.compile(r"\\cdot(?![a-zA-Z])|[\s.*]+")


def known(name: str) -> str | None:
    """The unit that a name means: "" for dollars, "%" for per cent. None for a name that is no unit."""
    names = [name]
    if len(name) >= SPELLED_OUT:
        names += [name.removesuffix("s"), name.lower(), name.lower().removesuffix("s")]
    found = next((_UNITS[each] for each in names if each in _UNITS), None)
    return name if found is None and _PREFIXED.fullmatch(name) else found


def factors(text: str) -> list[tuple[str, int]] | None:
    """The names in a unit, with "/" among them, and their powers; None where the text says more than these."""
    text = _US.sub("", _PER_CENT.sub("percent", text))
    text = _TEMPERATURE.sub(lambda found: f"°{found[1].upper()}", text)
    text = _PER_HOUR.sub(lambda found: "mi/h" if found[1] else "km/h", text)
    text = _PER.sub("/", _POWER_WORD.sub(lambda found: f"{found[2]}^{2 if found[1] else 3}", text))
    text = _TIMES.sub(" ", text)
    if _FACTOR.sub("", text).strip():
        return None
    return [("".join(found[1].split()), int(found[2] or 1)) for found in _FACTOR.finditer(text)]


def is_unit(parts: list[tuple[str, int]]) -> bool:
    """Whether all names are those of units."""
    return bool(parts) and all(name == "/" or known(name) is not None for name, _ in parts)


def canonical(parts: list[tuple[str, int]]) -> str:
    """The unit that names with powers make: the same for m/s and m s^{-1}. What names no units stays in its order."""
    if not is_unit(parts):
        named = [(known(name) or _singular(name), power) for name, power in parts if known(name) != ""]
        return " ".join(name if power == 1 else f"{name}^{power}" for name, power in named)
    powers: Counter[str] = Counter()
    sign = 1
    for name, power in parts:
        if name == "/":
            sign = -1
            continue
        powers[known(name) or ""] += sign * power
        sign = 1
    return " ".join(
        unit if power == 1 else f"{unit}^{power}" for unit, power in sorted(powers.items()) if unit and power
    )


def _singular(name: str) -> str:
    return name.lower().removesuffix("s") if len(name) >= SPELLED_OUT else name
