"""What the left side of an equation says about the value on its right: its name, or nothing."""

import re
from collections.abc import Sequence

from kinetics_serve.answers.notation import unstyled

_INDEXED = re.compile(r"\\?([a-zA-Z]+?)(?:_(?:\{\s*(\w+)\s*\}|(\w)))?")
_GREEK = re.compile(r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|sigma|rho|tau)")
_TUPLE = re.compile(r"\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)")
_PRIMES = r"(?:'{1,3}|\s*\^\s*\{?\s*(?:\\prime\s*){1,3}\}?)"
_COMPOSED = re.compile(
    rf"[a-zA-Z]{_PRIMES}?\s*\(\s*(?:[a-z]|-?[\d.]+)(?:\s*,\s*(?:[a-z]|-?[\d.]+))*\s*\)"  # f(x), f'(1)
    rf"|[a-zA-Z]{_PRIMES}|pO?H"  # y'
    r"|\\(?:vec|hat|overrightarrow)\s*\{\s*[a-zA-Z]{1,2}\s*\}"
    r"|\|\s*[A-Z]{1,3}\s*\||[A-Z]{2,4}|\\overline\s*\{[A-Z]+\}"  # |AB|, AB
    r"|(?:m\s*)?\\angle.*"
    r"|\\frac\s*\{[A-Z]{2,}\}\s*\{[A-Z]{2,}\}|[A-Z]{2,}\s*/\s*[A-Z]{2,}"  # ratios of lengths
    r"|\\frac\s*\{\s*d\s*[a-zA-Z]\s*\}\s*\{\s*d\s*[a-zA-Z]\s*\}|d[a-zA-Z]\s*/\s*d[a-zA-Z]"  # dy/dx
    r"|[A-Za-z][\w{}]*\s*:\s*[A-Za-z][\w{}]*"
    rf"|{_TUPLE.pattern}"
    r"|\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*[a-zA-Z]{2}[^{}]*\}|[a-zA-Z]{3,}(?: [a-zA-Z]+){0,5}"
)
_WORDS = re.compile(r"[A-Za-z]*[a-z]{2}[A-Za-z]*")
_UNSAID = re.compile(r"[\s|]|^m(?=\s*\\angle)")
_UNKNOWNS = frozenset("xnkt")
_OPPOSITES = frozenset(["max", "min", "maximum", "minimum", "profit", "loss", "gain", "increase", "decrease"])


def letter(left: str) -> str | None:
    """The letter, with its index, that a left side is; None for anything else, and for e and i, which are numbers."""
    left = left.strip()
    if _GREEK.fullmatch(left):
        return left.lstrip("\\")
    found = _INDEXED.fullmatch(left)
    if found is None or len(found[1]) > 1 or found[1] in "ei" or left.startswith("\\"):
        return None
    index = found[2] or found[3]
    return f"{found[1]}_{index}" if index else found[1]


def is_composed(left: str) -> bool:
    """Whether a left side is a function's value, a length, an angle, a ratio, a tuple of letters or words."""
    return bool(_COMPOSED.fullmatch(left))


def name(left: str) -> str | None:
    """The name that a left side gives its value where there are others; None where it is more than a name."""
    if (single := letter(left)) is not None or not is_composed(left):
        return single
    bare = _UNSAID.sub("", unstyled(left))
    return bare.casefold() if _WORDS.fullmatch(bare) else bare


def letters(left: str) -> tuple[str, ...]:
    """Those of a tuple, such as (r, h); none where the left side is no such tuple."""
    return tuple(each.strip() for each in left.strip()[1:-1].split(",")) if _TUPLE.fullmatch(left.strip()) else ()


def is_unknown(name: str) -> bool:
    """Whether a name is that of the one unknown: x, n, k or t, so that `x = 5` says no more than 5.

    Other letters tell quantities apart: `a = 3` is neither 3 nor `b = 3`.
    """
    return name in _UNKNOWNS


def has_opposite(name: str) -> bool:
    """Whether the same question may be answered by the opposite of what a word names: a profit of 5 is no loss of 5."""
    return name in _OPPOSITES


def enumerate_one(names: Sequence[str]) -> bool:
    """Whether names count the values of one unknown: the same name again and again, or x_1, x_2, …"""
    if len(set(names)) == 1:
        return is_unknown(names[0]) or len(names) > 1
    bases = {name.partition("_")[0] for name in names}
    numbers = [name.partition("_")[2] for name in names]
    return len(bases) == 1 and bases <= _UNKNOWNS and sorted(numbers) == [str(n + 1) for n in range(len(names))]
