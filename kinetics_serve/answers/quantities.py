"""A value with a unit: where the value ends.

Units are never converted and never dropped: 10 cm, 10 m and 10 are three answers. A dollar is no unit, for `$` is also
TeX's delimiter, and a per cent is a hundredth.
"""

import re
from typing import NamedTuple

from kinetics_serve.answers import units

_SIGNS = re.compile(r"^(?P<sign>[-+]?)\s*(?P<currency>[€£¥₹]|(?:USD|EUR|GBP|INR|Rs\.?)(?=[\s\d]))\s*(?=[-+]?[\d.])")
_MARK = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mbox|operatorname)\s*"
_POWER = r"(?:\^\s*\{?\s*-?\d\s*\}?)"
_PART = rf"{_MARK}\{{(?:[^{{}}]|\^\s*\{{[^{{}}]*\}})*\}}\s*{_POWER}?"
_MARKED = re.compile(rf"^(?P<value>.*?)\s*(?P<unit>{_PART}(?:\s*(?:/|\\cdot)?\s*{_PART})*)$", re.S)
_PLAIN = re.compile(
    r"^(?P<value>.*(?:(?<![\^_])(?<![\^_]\{)(?:[\d})]|\\pi)|10\s*\^\s*\d))(?P<space>\s*)"
    rf"(?P<unit>(?:°\s*)?[A-Za-zμΩ€£¥₹¢](?:[A-Za-zμΩ€£¥₹¢./ ]|\\cdot |{_POWER})*|[%°])$",
    re.S,
)
_INSIDE = r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
_RATE = re.compile(rf"\\frac{_INSIDE}{_INSIDE}$")
_UNMARKED = re.compile(rf"{_MARK}\{{((?:[^{{}}]|\^\s*\{{[^{{}}]*\}})*)\}}")
_CIRCLE = re.compile(rf"\^\s*\{{?\s*\\circ\s*\}}?(?:\s*{_MARK}\{{\s*([CF])\s*\}})?")
_DIGIT_OR_CONSTANT = re.compile(r"\d|\\pi|\\sqrt")
_TRIGONOMETRY = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])(?=\s*\S)")
_LONG_WORD = re.compile(r"(?<!\\)(?<![a-zA-Z])[a-zA-Z]{4,}")

MIN_WORD = 3
"""Letters of what may be a unit that `units` does not know, such as apples."""


class Quantity(NamedTuple):
    """value: a formula. unit: canonical, "" for none; "%" where the value counts hundredths."""

    value: str
    unit: str


def quantity(text: str) -> Quantity | None:
    """What a text in plain notation says, if it is a value with a unit after it or a currency before it."""
    if found := _SIGNS.match(text):
        return Quantity(found["sign"] + text[found.end() :].strip(), units.known(found["currency"].rstrip(".")) or "")
    if _TRIGONOMETRY.search(text):
        return None  # degrees are of its argument
    text = _CIRCLE.sub(lambda circle: f"°{circle[1] or ''}", text).replace(r"\Omega", "Ω")
    text = _RATE.sub(_rate, text)
    found = _MARKED.match(text) or _PLAIN.match(text)
    if found is None or not _DIGIT_OR_CONSTANT.search(found["value"]) or _LONG_WORD.search(found["value"]):
        return None
    parts = units.factors(_UNMARKED.sub(r" \1 ", found["unit"]))
    marked = "space" not in found.groupdict()
    spaced = marked or bool(found["space"])
    if not parts or not (units.is_unit(parts) or (spaced and max(len(name) for name, _ in parts) >= MIN_WORD)):
        return None
    if not marked and _is_product(parts, spaced):
        return None
    return Quantity(found["value"].strip().replace("°", r"^\circ "), units.canonical(parts))


def _rate(found: re.Match[str]) -> str:
    """A unit above a unit in one line; what else a fraction is, as it was."""
    top, bottom = (_UNMARKED.sub(r" \1 ", part).strip() for part in found.groups())
    parts = units.factors(f"{top}/{bottom}")
    return f" {top}/{bottom}" if top and bottom and parts is not None and units.is_unit(parts) else found[0]


def _is_product(parts: list[tuple[str, int]], spaced: bool) -> bool:
    """Whether letters after a number are rather factors: 3m, 3 m^4 and 3 m^2 s are products, 3 m is a length, and
    3 m s^{-1} a speed.
    """
    if not all(len(name) == 1 and name.isalpha() for name, _ in parts):
        return False
    powers = [power for _, power in parts]
    if any(power != 1 for power in powers[:-1]):
        return True
    return (not spaced or powers[-1] not in (1, 2, 3)) if len(parts) == 1 else abs(powers[-1]) not in (1, 2, 3)
