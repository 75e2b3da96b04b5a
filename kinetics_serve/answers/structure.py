"""What a mathematical answer is made of: lists, sets, tuples, intervals, equations, inequalities, matrices, quantities.

`term` reads an answer in plain notation (see `notation`) into nested tuples of normal forms (see `formula`), such that
equal answers have equal terms.
"""

import re

import sympy

from kinetics_serve.answers import commas, formula, names, regions, terms
from kinetics_serve.answers.brackets import depths, split, split_at
from kinetics_serve.answers.formula import NotAFormula
from kinetics_serve.answers.quantities import quantity
from kinetics_serve.answers.relations import (
    AND,
    OR,
    ORDERS,
    Relation,
    congruence,
    equation,
    exact,
    inequality,
    joined_inequalities,
    relation_of,
    subject,
)
from kinetics_serve.answers.terms import Term, in_order, set_of

_JOIN = re.compile(r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|\\(?:land|lor|vee|wedge)(?![a-zA-Z])"
                 r"|(?<![a-zA-Z\\{])(?:and|or)(?![a-zA-Z}])")  # fmt: skip
_DOUBLE_COMMA = re.compile(r",(?:\s*,)+")
_BASE = re.compile(r"([-+]?[0-9a-zA-Z]+)_(?:\{\s*(\d+)\s*\}|(\d+))")
_RATIO = re.compile(r"[\d.]+(?:\s*:\s*[\d.]+)+")
_MATRIX = re.compile(r"\[?\s*\\begin\{([bp]?)matrix\}((?:(?!\\end).)*)\\end\{\1matrix\}\s*\]?", re.S)
_ANGLES = re.compile(r"\\langle(?![a-zA-Z])(.*)\\rangle", re.S)
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_SEPARATOR = re.compile(r"[,;]")
_BAR = re.compile(r"\||:")
_LETTER = re.compile("[a-zA-Z]")
_STARTS = " \t\n,;"
_ENDS = " \t\n.,;"

MAX_SIGNS = 4
"""Of `\\pm` in one expression."""


def term(text: str) -> Term:
    """The term of an answer. Raises NotAFormula for what is no mathematics."""
    text = text.lstrip(_STARTS).rstrip(_ENDS).removeprefix(r"\approx ")
    text = commas.with_points(text)
    if (joined := congruence(text) or joined_inequalities(text)) is not None:
        return joined
    text = commas.without_thousands(text)
    if (alternatives := _alternatives(text)) is not None:
        return alternatives
    text = _DOUBLE_COMMA.sub(",", _JOIN.sub(",", text).strip(_ENDS))
    groups = [split(group, ",") for group in split(text, ";")]
    if all(len(group) == 1 for group in groups):
        return _list([part for (part,) in groups])
    return set_of(map(_list, groups))


def _alternatives(text: str) -> Term | None:
    """What "or" joins, where that is more than a list of values of one unknown; None where it is no more."""
    parts = [part for part in split_at(text, OR) if part]
    if len(parts) < 2:
        return None
    if all(map(regions.is_region, parts)):
        return regions.written(regions.region(r" \cup ".join(parts)))
    pieces = [[piece for piece in split(AND.sub(",", part), ",") if piece] for part in parts]
    subjects = [[subject(each) or piece for piece in part if (each := relation_of(piece))] for part in pieces]
    every = [each for part in subjects for each in part]
    if not every and not all(_LETTER.fullmatch(piece) for part in pieces for piece in part):
        return None
    if every and (len(set(every)) == 1 or names.enumerate_one(every)):
        return None
    joined = set_of([_list(part) if len(part) > 1 else _about(part[0]) for part in pieces])
    if every and len(set(map(frozenset, subjects))) == 1:
        return joined  # solutions, each of which has several values
    return ("or", *joined[1:]) if joined[0] == "set" else joined


def _list(parts: list[str]) -> Term:
    if len(parts) == 1:
        return _item(parts[0])
    relations = [relation_of(part) for part in parts]
    stated = [relation for relation in relations if relation is not None]
    named = [relation for relation in stated if relation.name is not None]
    if len(named) == len(parts):
        return terms.named(
            [(str(relation.name), _stated(relation)) for relation in named],
            lettered=not any(relation.composed for relation in named),
        )
    if relations[0] is not None and relations[0].name is not None and len(stated) == 1:  # x = 1, 2
        letters = names.letters(relations[0].sides[0])
        return set_of([_stated(relations[0]), *(in_order(letters, _item(part)) for part in parts[1:])])
    several = len(set(map(subject, stated))) > 1
    return set_of([_about(part) if several else _item(part) for part in parts])


def _stated(relation: Relation) -> Term:
    """The value on the right of an equals sign."""
    return in_order(names.letters(relation.sides[0]), _value(relation.sides[-1]))


def _about(text: str) -> Term:
    """The term of an item among others that may be about something else, so that its name counts."""
    item, relation = _item(text), relation_of(text)
    about = subject(relation) if relation is not None else None
    return item if about is None or item[0] in ("named", "equation") else ("named", (about, item))


def _item(text: str) -> Term:
    relation = relation_of(text)
    if relation is None:
        return _value(exact(text))
    if len(relation.sides) > 2 and set(relation.operators) == {"="} and relation.name is None:
        return _item(relation.sides[-1])  # a calculation, whose result is the answer
    if relation.composed and relation.name is not None:
        value = _stated(relation)
        return ("named", (relation.name, value)) if names.has_opposite(relation.name) else value
    if relation.name is not None and not _free_symbols(relation.sides[-1]):
        value = _value(relation.sides[-1])
        if relation.operators == ("in",):
            return value
        return value if names.is_unknown(relation.name) else ("named", (relation.name, value))
    return _relation(relation)


def _relation(relation: Relation) -> Term:
    operators = set(relation.operators)
    expressions = [formula.expression(side) for side in relation.sides]
    if operators == {"="}:
        if not any(expression.free_symbols for expression in expressions):
            return formula.written(expressions[-1])
        return equation(expressions)
    if operators <= ORDERS:
        return inequality(expressions, relation.operators)
    if relation.operators == ("ne",):
        if expressions[0].is_Symbol and expressions[1].is_real and not expressions[1].free_symbols:
            return regions.written(sympy.S.Reals - sympy.FiniteSet(expressions[1]))
        return "ne", formula.written(formula.up_to_factor(expressions[0] - expressions[1]))
    raise NotAFormula(" ".join(relation.sides))


def _free_symbols(text: str) -> bool:
    try:
        return bool(formula.expression(text).free_symbols)
    except NotAFormula:
        return False


def _value(text: str) -> Term:
    text = text.lstrip(_STARTS).rstrip(_ENDS)
    if not text:
        raise NotAFormula(text)
    if matrix := _MATRIX.fullmatch(text):
        return "matrix", *(tuple(map(_value, split(row, "&"))) for row in re.split(r"\\\\", matrix[2]) if row.strip())
    if regions.is_region(text):
        return regions.written(regions.region(text))
    if angles := _ANGLES.fullmatch(text):
        return "tuple", *map(_value, split_at(angles[1], _SEPARATOR))
    if (bracketed := _bracketed(text)) is not None:
        return bracketed
    if _SIGNS.search(text):
        return set_of([_value(each) for each in _signed(text)])
    if found := _RATIO.fullmatch(text):
        return "ratio", "".join(found[0].split())
    if found := _BASE.fullmatch(text):
        return "base", found[2] or found[3], found[1].lower()
    if (measured := quantity(text)) is not None:
        return _quantity(*measured)
    expression = formula.expression(text)
    if isinstance(expression, sympy.MatrixBase):
        return "matrix", *(tuple(map(formula.written, row)) for row in expression.tolist())
    return formula.written(expression)


def _quantity(value: str, unit: str) -> Term:
    if unit == "%":
        return formula.written(formula.normal(formula.expression(value) / 100))
    return ("quantity", term(value), unit) if unit else term(value)


def _bracketed(text: str) -> Term | None:
    """The set, tuple or interval that the whole text is; None where it is none of them."""
    opening = r"\{" if text.startswith(r"\{") else text[0]
    closing = r"\}" if text.endswith(r"\}") else text[-1]
    if opening not in (r"\{", "(", "[", "{") or closing not in (r"\}", ")", "]", "}"):
        return None
    inner = text[len(opening) : -len(closing)]
    if 0 in depths(text)[1 : len(text) - len(closing) + 1]:
        return None
    parts = split_at(inner, _SEPARATOR)
    if opening in (r"\{", "{"):
        if opening == r"\{" and len(builder := split_at(inner, _BAR)) == 2:
            return _item(builder[1])
        elements = [part for part in parts if part]
        return set_of([_list(elements)] if elements else []) if opening == r"\{" or len(parts) > 1 else _value(inner)
    if len(parts) == 1:
        return _value(inner) if opening == "(" and closing == ")" and inner.strip() else None
    if opening + closing == "[]" and (rows := _rows(inner)) is not None:
        return "matrix", *(tuple(map(_value, row)) for row in rows)
    if opening + closing == "[]" and len(parts) > 2:
        return "list", *map(_value, parts)
    if len(parts) == 2 and opening + closing != "()":
        return regions.interval_term(opening, _value(parts[0]), _value(parts[1]), closing)
    return "tuple", *map(_value, parts)


def _rows(inner: str) -> list[list[str]] | None:
    """The rows of [[1, 2], [3, 4]] and [1, 2; 3, 4]; None where the brackets hold no matrix."""
    rows = split(inner, ",")
    if all(row.startswith("[") and row.endswith("]") for row in rows):
        return [split(row[1:-1], ",") for row in rows]
    rows = split(inner, ";")
    return [split(row, ",") for row in rows] if len(rows) > 1 and all("," in row for row in rows) else None


def _signed(text: str) -> tuple[str, str]:
    if len(_SIGNS.findall(text)) > MAX_SIGNS:
        raise NotAFormula(text)
    upper = _SIGNS.sub(lambda sign: "+" if sign[1] == "pm" else "-", text)
    return upper, _SIGNS.sub(lambda sign: "-" if sign[1] == "pm" else "+", text)
