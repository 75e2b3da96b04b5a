"""The last formula or number of a text that marks no answer."""

import re

from kinetics_serve.answers.numerals import last_number

FORMULA = re.compile(r"\$\$\s*(.+?)\s*\$\$|\$\s*([^$]+?)\s*\$(?!\d)|\\\(\s*(.+?)\s*\\\)|\\\[\s*(.+?)\s*\\\]", re.S)
PER_CENT = re.compile(r"\s*(?:\\?%|percent|per cent|pct)")

_JOINT = re.compile(r"\s*(?:,?\s*(?:and|or)|,)\s*")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z][a-z]{3,}")
_COMMAND_WITH_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox|begin|end)\s*\{[^{}]*\}")
_NAME = re.compile(r"\\?[a-zA-Z]+")

SEARCHED_CHARACTERS = 2048
"""How much of a text's end is searched."""


def last_expression(text: str) -> str | None:
    """The last formula between delimiters, or several that "and" joins; the last number, where that comes later."""
    tail = text[-SEARCHED_CHARACTERS:]
    number = last_number(tail)
    formulas = [each for each in FORMULA.finditer(tail) if _is_formula(inside(each))]
    if not formulas or (number is not None and formulas[-1].end() < number[2]):
        return number[0] if number is not None else None
    last = [formulas[-1]]
    for each in reversed(formulas[:-1]):
        if not _JOINT.fullmatch(tail, each.end(), last[0].start()):
            break
        last.insert(0, each)
    joined = ", ".join([inside(each) for each in last])
    return joined + "%" if len(last) == 1 and PER_CENT.match(tail, last[0].end()) else joined


def inside(found: re.Match[str]) -> str:
    """What stands between a formula's delimiters."""
    return str(next(filter(None, found.groups()), "")).strip()


def _is_formula(text: str) -> bool:
    return not (_WORDS.search(_COMMAND_WITH_TEXT.sub("", text)) or _NAME.fullmatch(text))
