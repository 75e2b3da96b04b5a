"""When two answers are the same answer: when they have the same key.

So sameness is symmetric and transitive, and does not depend on the order in which answers come. A key begins with the
domain that the answer was taken for.
"""

import re
from fractions import Fraction
from typing import Any, Literal, cast

from kinetics_serve.answers.chemistry import chemical_formula
from kinetics_serve.answers.dates import date_or_time
from kinetics_serve.answers.notation import plain, unstyled
from kinetics_serve.answers.structured import canonical, loads
from kinetics_serve.answers.words import order_or_division

AnswerKind = Literal["auto", "math", "choice", "text", "json", "code"]
EquivalenceKind = Literal["auto", "math", "choice", "text", "json", "exact"]
Domain = Literal["math", "choice", "text", "json", "code", "exact"]

MAX_MATH_LENGTH = 500
"""Longer answers are compared as text: no formula that a person reads is longer."""

ROUNDED_PLACES = 10
MAX_SIMPLE_DENOMINATOR = 1000
"""Below it, no two fractions have the same ten decimal places."""

DOUBLE_DIGITS = 15
DOUBLE_EPSILON = Fraction(1, 2**52)

ROOT_PLACES = 14
MAX_ROOT_DENOMINATOR = 100
MAX_ROOT = 10_000
"""Of decimals, and of the fractions whose roots they may be: so few that no other decimal is one of them by chance."""

_PAIRS = {'"': '"', "'": "'", "`": "`", "*": "*", "_": "_", "«": "»", "「": "」"}
_OPENING = "\"'`*_ "
_CAPITALS = re.compile("[A-Z]{2,3}")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?(?:\s*/\s*\d+)?", re.I)
_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_LETTER = re.compile(r"(?:(?i:option|choice|answer)\s+)?(?:\(\s*([A-Ja-j])\s*\)|\[\s*([A-J])\s*\]|([A-J])\s*[).:]?)")
_OPTION = re.compile(r"\(\s*([A-J])\s*\)\s+\S.*|([A-J])\)\s+\S.*", re.S)
_LOOSE_OPTION = re.compile(r"\(?\s*([A-Ja-j])\s*[).:]?(?:\s+\S.*)?", re.S)
_CALCULABLE = re.compile(r"[\d\\^_=<>+/*|(){}\[\]%]")
_PROSE = re.compile(r"[^\W\d_]{4,}")
_MATHEMATICAL_WORDS = frozenset(
    ("sqrt", "frac", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "infty", "binom", "theta", "alpha", "beta")
)


def domain(key: str) -> Domain:
    """What the answer with this key was taken for."""
    return cast(Domain, key.partition(":")[0])


def quick_key(answer: str, kind: EquivalenceKind) -> str | None:
    """The key of an answer, where that needs no computer algebra; None where it does."""
    if kind == "exact":
        return f"exact:{answer}"
    if kind == "json" or (kind == "auto" and answer.lstrip().startswith(("{", "["))):
        data = _json(answer, kind)
        if data is not None:
            return f"json:{data}"
        if kind == "json":
            return text_key(answer)
    if kind == "text" or len(answer) > MAX_MATH_LENGTH:
        return text_key(answer)
    bare = unquoted(unstyled(plain(answer)), " \t\n,;:", " \t\n.,;:")
    if kind in ("auto", "choice") and (letter := _letter(bare, kind)) is not None:
        return f"choice:{letter}"
    if kind == "choice":
        return text_key(answer)
    if _CAPITALS.fullmatch(bare):
        return text_key(answer)  # IV, NE and CO are no products, whose factors might change places
    if (exact := date_or_time(bare) or chemical_formula(bare) or order_or_division(bare)) is not None:
        return f"text:{exact}"
    value = simple_number(bare) if root_of(bare) is None else None
    if value is not None:
        return math_key(number(value.numerator, value.denominator))
    if not _CALCULABLE.search(bare):
        words = _PROSE.findall(bare)
        if any(word.lower() not in _MATHEMATICAL_WORDS for word in words):
            return text_key(answer)
    return None


def text_key(answer: str) -> str:
    """The key of an answer that is text: case, spaces, styling and punctuation at its edges make no other answer."""
    return f"text:{normalised(answer)}"


def math_key(term: Any) -> str:
    """The key of a mathematical answer by its term."""
    return f"math:{term}"


def slow_key(answer: str) -> str:
    """The key of an answer whose key takes too long to find: it equals what is written alike."""
    return f"math:unread {normalised(answer)}"


def is_slow(key: str) -> bool:
    """Whether `slow_key` made the key."""
    return key.startswith("math:unread ")


def number(numerator: int, denominator: int) -> str:
    """A rational number in lowest terms: in hexadecimal, because that takes time linear in its length."""
    return hex(numerator) if denominator == 1 else f"{hex(numerator)}/{hex(denominator)}"


def normalised(answer: str) -> str:
    """A text without its case, styling, runs of white space, and punctuation at its edges."""
    text = unstyled(plain(answer)) if len(answer) <= MAX_MATH_LENGTH else answer
    text = " ".join(text.casefold().split())
    return unquoted(text, " .,;:$", " .,;:!?$") or text


def unquoted(text: str, before: str, after: str) -> str:
    """A text without quotes and marks of styling around it, and without the given characters before and after it.

    One that only stands after it means something: 5' is no 5", nor f' f'', nor C* C. Two stars close what was bold.
    """
    text = text.lstrip(before).rstrip(after)
    while len(text) > 1 and _PAIRS.get(text[0]) == text[-1]:
        text = text[1:-1].lstrip(before).rstrip(after)
    bare = text.lstrip(_OPENING).removesuffix("**").removesuffix("__")
    return bare if bare == text else unquoted(bare, before, after)


def simple_number(text: str) -> Fraction | None:
    """The value of a number in plain notation: a decimal, or a fraction of whole numbers; None for anything else."""
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if not _NUMBER.fullmatch(text):
        return None
    numerator, _, denominator = text.partition("/")
    bottom = int(denominator) if denominator else 1
    return decimal(numerator.strip()) / bottom if bottom else None


def decimal(text: str) -> Fraction:
    """The value of a decimal: exactly what it says, so that 0.333 is not 1/3.

    One of ten or more decimal places that is a simple fraction rounded is that fraction: 0.3333333333 is 1/3. So is one
    with all the digits of a double, cut off or with its error: 0.6666666666666666 is 2/3. Which fraction depends on the
    decimal alone, so this merges no two values that are stated exactly.
    """
    value = Fraction(text)
    places = len(text.partition(".")[2])
    if places < ROUNDED_PLACES or not text[-1].isdigit() or "e" in text.lower():
        return value
    simple = value.limit_denominator(MAX_SIMPLE_DENOMINATOR)
    last = Fraction(1, 10**places)
    digits = len(text.lstrip("-+0.").replace(".", ""))
    short = abs(simple) - abs(value)
    rounded = 2 * abs(short) <= last
    cut_off = 0 < short < last and (simple / last).denominator > 1
    in_error = abs(short) <= abs(value) * DOUBLE_EPSILON
    return simple if rounded or (digits >= DOUBLE_DIGITS and (cut_off or in_error)) else value


def root_of(text: str) -> Fraction | None:
    """The simple fraction whose square root a decimal of 14 or more places is, rounded: 1.4142135623730951 is √2, as a
    program prints it. None for every other. It depends on the decimal alone, as in `decimal`.
    """
    places = len(text.partition(".")[2])
    if places < ROOT_PLACES or not text.lstrip("-+").replace(".", "", 1).isdecimal():
        return None
    value = abs(Fraction(text))
    simple = (value * value).limit_denominator(MAX_ROOT_DENOMINATOR)
    near = abs(simple - value * value) <= value * Fraction(1, 10**places) and 0 < simple < MAX_ROOT
    exact = value.denominator <= MAX_SIMPLE_DENOMINATOR or decimal(text.lstrip("-+")) != value
    return simple if near and not exact else None


def _letter(bare: str, kind: EquivalenceKind) -> str | None:
    found = _LETTER.fullmatch(bare) or _OPTION.fullmatch(bare)
    if found is None and kind == "choice":
        found = _LOOSE_OPTION.fullmatch(bare)
    letter = next(filter(None, found.groups()), None) if found is not None else None
    return letter.upper() if letter is not None else None


def _json(answer: str, kind: EquivalenceKind) -> str | None:
    try:
        value = loads(answer)
    except (ValueError, RecursionError):
        return None
    return canonical(value) if kind == "json" or not _numeric(value) else None


def _numeric(value: Any) -> bool:
    """Whether it is a list of numbers, which may be an interval, or a number."""
    if isinstance(value, list):
        return all(map(_numeric, value))
    return isinstance(value, int | float)
