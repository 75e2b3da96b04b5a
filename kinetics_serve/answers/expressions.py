"""The last formula or number of a text that marks no answer."""

import re

from kinetics_serve.answers.inline import last_inline

FORMULA = re.compile(r"\$\$\s*(.+?)\s*\$\$|\$\s*([^$]+?)\s*\$(?!\d)|\\\(\s*(.+?)\s*\\\)|\\\[\s*(.+?)\s*\\\]", re.S)
PER_CENT = re.compile(r"\s*(?:\\?%|percent|per cent|pct)")

_JOINT = re.compile(r"\s*(?:,?\s*(?:and|or)|,)\s*")
_WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z][a-z]{3,}")
_COMMAND_WITH_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox|begin|end)\s*\{[^{}]*\}")
_ASIDE = re.compile(
    r"(?i)\s*\((?:here|see|since|because|from|using|step|check)\b[^()\n]{0,200}\)"
    r"|\s*\([^()\n=]{0,40}[a-z]{3}[^()\n=]{0,40}\s[×*+=−-]\s[^()\n]{0,40}\)"
    r"|(?<=[\w$)}*%])(?:, (?:since|where|as|for)| because|, because)\s[^\n,;!?]{0,200}?(?=[,;!?]|\.(?:\s|$)|\n|$)"
)
"""What explains an answer after it was given."""

_NAME = re.compile(r"(?!\\(?:infty|pi|emptyset|varnothing)$)\\?[a-zA-Z]+")

SEARCHED_CHARACTERS = 2048
"""How much of a text's end is searched."""


def last_expression(text: str) -> str | None:
    """The last formula between delimiters, or several that "and" joins; the last expression without any, where that
    comes later. What only explains it counts where there is nothing else.
    """
    tail = text[-SEARCHED_CHARACTERS:]
    return _last(_ASIDE.sub("", tail)) or _last(tail)


def _last(tail: str) -> str | None:
    bare = last_inline(tail)
    formulas = [each for each in FORMULA.finditer(tail) if _is_formula(inside(each))]
    if not formulas or (bare is not None and formulas[-1].end() < bare[1]):
        return bare[0] if bare is not None else None
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
