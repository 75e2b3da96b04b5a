"""When two answers are the same answer."""

import re
import unicodedata
from fractions import Fraction
from typing import Literal

EquivalenceKind = Literal["auto", "math", "text", "exact"]

MAX_MATH_LENGTH = 500
"""Longer answers are compared as text: no formula that a person reads is longer."""

_EDGE = " \t\r\n.,;:!?\"'`*_$"
_SIMPLE_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d{1,3})?(?:\s*/\s*\d+)?")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD_OR_DATE = re.compile(r"[^\W\d_]{2,}|:|%|\d+[-/.]\d+[-/.]\d+")
_VARIABLE = re.compile(r"[^\W\d_]")
_OPERATOR = re.compile(r"[-+*/^=()]")


def normalised(answer: str) -> str:
    """Case, width, runs of white space and punctuation at the edges don't make an answer another one."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    return " ".join(text.split()).strip(_EDGE)


def simple_number(answer: str) -> Fraction | None:
    """The value of a plain number, decimal or fraction of whole numbers; None for anything else."""
    text = normalised(answer).replace(",", "")
    if len(text) > MAX_MATH_LENGTH or not _SIMPLE_NUMBER.fullmatch(text):
        return None
    numerator, _, denominator = text.partition("/")
    bottom = Fraction(denominator.strip() or 1)
    return Fraction(numerator.strip()) / bottom if bottom else None


def looks_mathematical(answer: str) -> bool:
    """Whether computer algebra can be trusted with it: no words or units, no times, dates or percentages (math-verify
    drops what it takes for a unit), and letters only as variables of a formula.
    """
    if len(answer) > MAX_MATH_LENGTH:
        return False
    bare = _COMMAND.sub(" ", answer)
    if _WORD_OR_DATE.search(bare):
        return False
    if _VARIABLE.search(bare):
        return bool(_OPERATOR.search(bare))
    return bare != answer or any(mark.isdigit() for mark in bare)


def quickly_equal(a: str, b: str, kind: EquivalenceKind) -> bool | None:
    """Whether a and b are the same, where that needs no computer algebra; None where it does."""
    if kind == "exact":
        return a == b
    if normalised(a) == normalised(b):
        return True
    if kind == "text":
        return False
    left, right = simple_number(a), simple_number(b)
    if left is not None and right is not None:
        return left == right
    if kind == "auto" and not (looks_mathematical(a) and looks_mathematical(b)):
        return False
    return None if max(len(a), len(b)) <= MAX_MATH_LENGTH else False


def mathematically_equal(a: str, b: str) -> bool:
    """Whether a and b denote the same value (`1/2`, `0.5`, `\\frac12`), by math-verify.

    It can take arbitrarily long on hostile input: run it where it can be killed. math-verify's own time limits
    are off, because they work in a main thread only.
    """
    from math_verify import parse, verify  # imports SymPy: only where it is needed

    left, right = (parse(f"${text.strip('$')}$", parsing_timeout=None) for text in (a, b))
    return bool(verify(left, right, timeout_seconds=None) or verify(right, left, timeout_seconds=None))
