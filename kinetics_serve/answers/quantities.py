"""A value with a unit: where the value ends, and which units are one.

Units are never converted and never dropped: 10 cm, 10 m and 10 are three answers. A dollar is no unit, for `$` is also
TeX's delimiter, and a per cent is a hundredth.
"""

import re
from typing import NamedTuple

_SYNONYMS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram kilo",
    "lb": "lbs",
    "oz": "ounce",
    "ml": "mL milliliter millilitre",
    "l": "L liter litre",
    "gal": "gallon",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "°": "degree deg",
    "°C": "celsius",
    "°F": "fahrenheit",
    "sq": "square",
    "cu": "cubic",
    "Hz": "hertz",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "Pa": "pascal",
    "mph": "",
    "kmh": "kmph kph",
    "rad": "radian",
    "€": "euro EUR",
    "£": "GBP",
    "¥": "yen JPY yuan CNY RMB",
    "₹": "rupee INR",
    "¢": "cent",
    "AM": "am",
    "PM": "pm",
}
_UNITS = {name: unit for unit, names in _SYNONYMS.items() for name in (unit, *names.split())}
_DOLLARS = frozenset({"dollar", "USD", "US$", "bucks"})
_PER_CENT = frozenset({"%", "percent", "percentage", "pct"})

_SIGNS = re.compile(r"^(?P<sign>[-+]?)\s*(?P<currency>[€£¥₹])\s*(?=[-+]?[\d.])")
_MARKED = re.compile(r"^(?P<value>.*?)\s*\\(?:text|textbf|textit|textrm|textnormal|mathrm|mbox|operatorname)\s*"
                     r"\{(?P<unit>[^{}]*)\}\s*(?P<power>(?:\^\s*\{?\s*[23]\s*\}?)?)$", re.S)  # fmt: skip
_PLAIN = re.compile(
    r"^(?P<value>.*(?<![\^_])(?<![\^_]\{)(?:[\d})]|\\pi))(?P<space>\s*)"
    r"(?P<unit>%|(?:\^\s*\{?\\circ\s*\}?\s*)?[A-Za-z€£¥₹¢][A-Za-z€£¥₹¢./ ]*|\^\s*\{?\\circ\s*\}?)"
    r"(?P<power>(?:\^\s*\{?\s*[23]\s*\}?)?)$",
    re.S,
)
_CIRCLE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_WORD = re.compile(r"°\s*[CF](?![A-Za-z])|[A-Za-z]+|[°€£¥₹¢%/]")
_DIGIT_OR_CONSTANT = re.compile(r"\d|\\pi|\\sqrt")
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_LONG_WORD = re.compile(r"(?<!\\)(?<![a-zA-Z])[a-zA-Z]{4,}")


class Quantity(NamedTuple):
    """value: a formula. unit: canonical, "" for none; "%" where the value counts hundredths."""

    value: str
    unit: str


def quantity(text: str) -> Quantity | None:
    """What a text in plain notation says, if it is a value with a unit after it or a currency sign before it."""
    if found := _SIGNS.match(text):
        return Quantity(found["sign"] + text[found.end() :].strip(), found["currency"])
    if _TRIGONOMETRY.search(text):
        return None  # degrees are of its argument
    found = _MARKED.match(text) or _PLAIN.match(text)
    if found is None or not _DIGIT_OR_CONSTANT.search(found["value"]) or _LONG_WORD.search(found["value"]):
        return None
    words = _WORD.findall(_CIRCLE.sub("°", found["unit"]))
    spaced = "space" not in found.groupdict() or bool(found["space"])
    if not words or not (_is_unit(words) or (spaced and max(map(len, words)) > 2)):
        return None
    if not spaced and len(words) == 1 and len(words[0]) == 1 and words[0].isalpha():
        return None  # 3m is a product; 3 m and 3\text{m} are a length
    power = "".join(character for character in found["power"] if character.isdigit())
    return Quantity(found["value"].strip(), _canonical(words) + power)


def _is_unit(words: list[str]) -> bool:
    return all(_known(word) is not None or word == "/" for word in words)


def _known(word: str) -> str | None:
    word = "".join(word.split())
    for name in (word, word.removesuffix("s"), word.lower(), word.lower().removesuffix("s")):
        if name in _DOLLARS:
            return ""
        if name in _PER_CENT:
            return "%"
        if name in _UNITS:
            return _UNITS[name]
    return None


def _canonical(words: list[str]) -> str:
    known = [_known(word) for word in words]
    units = [
        unit if unit is not None else word.lower().removesuffix("s") if len(word) > 3 else word
        for unit, word in zip(known, words, strict=True)
    ]
    if units[:1] in (["sq"], ["cu"]) and len(units) > 1:  # square meters are m², cubic ones m³
        units = [*units[1:], "2" if units[0] == "sq" else "3"]
    return "".join(units).replace("°°", "°") if _is_unit(words) else " ".join(units)
