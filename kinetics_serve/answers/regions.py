"""Sets of numbers: intervals, unions, complements, and the sets that have letters of their own."""

import re
from operator import and_, or_, sub
from typing import Any

import sympy

from kinetics_serve.answers import formula
from kinetics_serve.answers.brackets import split_at
from kinetics_serve.answers.formula import NotAFormula
from kinetics_serve.answers.terms import Term

_LETTERS = {"R": sympy.S.Reals, "Z": sympy.S.Integers, "N": sympy.S.Naturals, "Q": sympy.S.Rationals}
_LETTER = re.compile(r"\\mathbb\s*\{?\s*([RZNQ])\s*\}?|\\emptyset|\\\{\s*\\\}")
_JOINT = re.compile(r"\\(cup|cap|setminus)(?![a-zA-Z])")
_JOIN = {"cup": or_, "cap": and_, "setminus": sub}
_INTERVAL = re.compile(r"([(\[])([^,;]+)[,;]([^,;]+)([)\]])")
_SET = re.compile(r"\\\{(.*)\\\}", re.S)
_COMMA = re.compile(r"[,;]")


def is_region(text: str) -> bool:
    """Whether a text joins sets, is a set with a letter of its own, or an interval without an end."""
    if len(split_at(text, _JOINT)) > 1 or _LETTER.fullmatch(text):
        return True
    interval = _INTERVAL.fullmatch(text)
    return interval is not None and r"\infty" in text


def region(text: str) -> Any:
    """The set that a text denotes. Raises NotAFormula."""
    parts = split_at(text, _JOINT)
    joints = [found[1] for found in _JOINT.finditer(text)]
    if len(joints) != len(parts) - 1:
        raise NotAFormula(text)
    result = _single(parts[0])
    for joint, part in zip(joints, parts[1:], strict=True):
        other = _single(part)
        result = _JOIN[joint](result, other)
    return result


def written(value: Any) -> Term:
    """The term of a set. An open interval is written as the pair of its ends is, for it is a pair that text shows."""
    if value is sympy.S.EmptySet:
        return ("set",)
    if isinstance(value, sympy.FiniteSet):
        elements = sorted(formula.written(formula.normal(element)) for element in value.args)
        return elements[0] if len(elements) == 1 else ("set", *elements)
    if isinstance(value, sympy.Interval):
        start, end = [formula.written(formula.normal(end)) for end in (value.start, value.end)]
        return interval_term("(" if value.left_open else "[", start, end, ")" if value.right_open else "]")
    if isinstance(value, sympy.Union):
        return "union", *sorted(map(written, value.args), key=repr)
    return "region", str(value)


def interval_term(opening: str, start: Term, end: Term, closing: str) -> Term:
    """The term of an interval with these ends."""
    if opening == "(" and closing == ")":
        return "tuple", start, end
    return "interval", opening, start, end, closing


def _single(text: str) -> Any:
    text = text.strip()
    if letter := _LETTER.fullmatch(text):
        return _LETTERS[letter[1]] if letter[1] else sympy.S.EmptySet
    if interval := _INTERVAL.fullmatch(text):
        start, end = formula.expression(interval[2]), formula.expression(interval[3])
        if not (start.is_extended_real and end.is_extended_real):
            raise NotAFormula(text)
        return sympy.Interval(start, end, interval[1] == "(", interval[4] == ")")
    if elements := _SET.fullmatch(text):
        return sympy.FiniteSet(*[formula.expression(each) for each in split_at(elements[1], _COMMA)])
    if text.startswith("(") and text.endswith(")"):
        return region(text[1:-1])
    raise NotAFormula(text)
