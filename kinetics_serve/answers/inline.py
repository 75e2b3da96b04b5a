"""The last expression of running text that no delimiters mark: a number, and what it is a part of."""

import re

from kinetics_serve.answers.compounds import COMPOUND
from kinetics_serve.answers.numerals import last_number

_DIGITS = r"(?:\\?[$€£])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?%?"
_NAME = r"(?<![A-Za-z'’\\_])[A-Za-z](?![A-Za-z'’])"
_COEFFICIENT = rf"{_DIGITS}(?:[abijnrtxyzθ](?![A-Za-z]))?"
_ROOT = r"(?:√|\\sqrt ?|\bsqrt)(?:\d+|\{[^{}\n]{1,40}\}|\([^()\n]{1,40}\)|[a-z](?![a-z]))"
_GROUP = r"\((?:[^()\w\n]|\d|(?<![^\W\d_])[A-Za-z](?![^\W\d_])){1,40}\)"
_POWER = (
    r"(?:\^(?:\{[^{}\n]{1,20}\}|\([^()\n]{1,20}\)|[-−]?\w)\d*|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|!(?=[.,\s]*[a-z.*/+^-])|°(?!\s?[CFK]))*+"
)
_CALLED = rf"{_NAME}(?:_\w|[₀-₉])?(?:{_GROUP})?"
_FACTOR = rf"(?:(?:{_COEFFICIENT}|{_ROOT}|π|\\pi\b|∞|(?<![\w)]){_GROUP}|{_CALLED}){_POWER})"
_TERM = rf"{_FACTOR}(?:(?:{_ROOT}|π|\\pi\b|{_GROUP}|(?<=[a-z])[a-z](?![A-Za-z'])){_POWER}){{0,4}}+"
_OPERATOR = r"(?:(?<![A-Z]) [-+−*/×·÷:] |[-+−*/×·÷]|(?<=\d):(?=\d))"
_SUM = rf"[-−]?{_TERM}(?:{_OPERATOR}[-−]?{_TERM}){{0,12}}+"
_RELATION = r" ?(?:[<>]=?|[=≤≥≈]) ?"
_CHAIN = rf"{_SUM}(?:{_RELATION}{_SUM}){{0,6}}+"
_TUPLE = rf"(?<![\w)\]}}])[(\[{{] ?{_SUM}(?:[,;] ?{_SUM}){{1,9}} ?[)\]}}]"

_EXPRESSION = re.compile(rf"(?<![\w.\\])(?:({COMPOUND})|({_TUPLE})|({_CHAIN}))")
_RELATIONS = re.compile(_RELATION)
_INEQUALITY = re.compile(r"[<>≤≥]")
_PLAIN = re.compile(rf"[-−]?{_DIGITS}(?: ?/ ?\d+)?")
_LEFT = re.compile(_CALLED)
_JOINT = re.compile(r",? (?:and|or) |, ")


def last_inline(text: str) -> tuple[str, int] | None:
    """The last number of a text, or the expression that it is a part of, and where that ends."""
    number = last_number(text)
    if number is None:
        return None
    value, start, end = number
    found = [each for each in _EXPRESSION.finditer(text) if each.start() < end]
    if not found or found[-1].end() <= start:
        return value, end
    around = found.pop()
    if around[1] or around[2]:
        return around[0], around.end()
    equations = [around]
    while found and _JOINT.fullmatch(text, found[-1].end(), equations[0].start()):
        equations.insert(0, found.pop())
    if len(equations) > 1 and all(_is_equation(each[0]) for each in equations):
        return ", ".join([each[0] for each in equations]), around.end()
    said = _result(around[0])
    return (value, end) if _PLAIN.fullmatch(said) else (said, around.end())


def _result(chain: str) -> str:
    """What a chain of equations ends with. An inequality is its own result, and so is an equation that names a line or
    a function.
    """
    sides = _RELATIONS.split(chain)
    if _INEQUALITY.search(chain):
        return chain
    names = len(sides) == 2 and _LEFT.fullmatch(sides[0]) and not _PLAIN.fullmatch(sides[1])
    return chain if names else sides[-1]


def _is_equation(chain: str) -> bool:
    sides = _RELATIONS.split(chain)
    return len(sides) == 2 and _LEFT.fullmatch(sides[0]) is not None and not _INEQUALITY.search(chain)
