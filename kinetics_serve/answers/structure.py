"""What a mathematical answer is made of: lists, sets, tuples, intervals, equations, inequalities, matrices, quantities.

`term` reads an answer in plain notation (see `notation`) into nested tuples of normal forms (see `formula`), such that
equal answers have equal terms.
"""

import re
from collections.abc import Iterator
from functools import reduce
from operator import and_, or_
from typing import Any

import sympy

from kinetics_serve.answers import formula, regions
from kinetics_serve.answers.brackets import depths, split, split_at
from kinetics_serve.answers.formula import NotAFormula
from kinetics_serve.answers.quantities import quantity
from kinetics_serve.answers.relations import (
    ORDERS,
    Names,
    Relation,
    equation,
    inequality,
    relation_of,
    solutions,
    the_unknown,
)

Term = str | tuple[Any, ...]

_OR = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*or\s*\}|\\(?:lor|vee)(?![a-zA-Z])|(?<![a-zA-Z\\{])or(?![a-zA-Z}])"
)
_AND_ALSO = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*and\s*\}|\\(?:land|wedge)(?![a-zA-Z])|(?<![a-zA-Z\\{])and(?![a-zA-Z}])"
)
_AND = re.compile(r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|\\(?:land|lor|vee|wedge)(?![a-zA-Z])"
                  r"|(?<![a-zA-Z\\{])(?:and|or)(?![a-zA-Z}])")  # fmt: skip
_DOUBLE_COMMA = re.compile(r",(?:\s*,)+")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_DECIMAL_COMMA = re.compile(r"[-+]?\s*[€£¥₹]?\s*(?:0|\d{4,}),\d+\s*[€£¥₹%]?|[-+]?\s*\d+,\d+\s*%")
_CURRENCY_COMMA = re.compile(r"[-+]?\d+,\d{1,2}")
_BASE = re.compile(r"([-+]?[0-9a-zA-Z]+)_(?:\{\s*(\d+)\s*\}|(\d+))")
_RATIO = re.compile(r"[\d.]+(?:\s*:\s*[\d.]+)+")
_MATRIX = re.compile(r"\[?\s*\\begin\{([bp]?)matrix\}((?:(?!\\end).)*)\\end\{\1matrix\}\s*\]?", re.S)
_ANGLES = re.compile(r"\\langle(?![a-zA-Z])(.*)\\rangle", re.S)
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_SEPARATOR = re.compile(r"[,;]")
_BAR = re.compile(r"\||:")
_STARTS = " \t\n,;"
_ENDS = " \t\n.,;"

MAX_SIGNS = 4
"""Of `\\pm` in one expression."""


def term(text: str) -> Term:
    """The term of an answer. Raises NotAFormula for what is no mathematics."""
    text = text.lstrip(_STARTS).rstrip(_ENDS).removeprefix(r"\approx ")
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if (joined := _joined_inequalities(text)) is not None:
        return joined
    text = _DOUBLE_COMMA.sub(",", _AND.sub(",", _without_thousands(text)).strip(_ENDS))
    if len(groups := split(text, ";")) > 1:
        return _set([_list(split(group, ",")) for group in groups])
    return _list(split(text, ","))


def _joined_inequalities(text: str) -> Term | None:
    """The solutions of inequalities in one unknown that "or" or "and" join; None for anything else."""
    for word, join in ((_OR, or_), (_AND_ALSO, and_)):
        parts = split_at(text, word)
        relations = [relation_of(part) for part in parts] if len(parts) > 1 else []
        if not relations or not all(each is not None and set(each.operators) <= ORDERS for each in relations):
            continue
        chains = [([formula.expression(side) for side in each.sides], each.operators) for each in relations if each]
        unknown = the_unknown([side for sides, _ in chains for side in sides])
        if unknown is not None:
            return regions.written(reduce(join, [solutions(sides, order, unknown) for sides, order in chains]))
    return None


def _without_thousands(text: str) -> str:
    depth = depths(text)
    return _THOUSANDS.sub(lambda found: found[0] if depth[found.start()] else found[0].replace(",", ""), text)


def _list(parts: list[str]) -> Term:
    if len(parts) == 1:
        return _item(parts[0])
    relations = [relation_of(part) for part in parts]
    names = [relation.name if relation is not None else None for relation in relations]
    if all(name is not None for name in names):
        values = [_value(relation.sides[-1]) for relation in relations if relation is not None]
        if Names.enumerate_one([name for name in names if name is not None]):
            return _set(values)
        by_name = sorted(zip(map(str, names), values, strict=True), key=repr)
        return ("tuple", *(value for _, value in by_name)) if len(set(names)) == len(names) else ("named", *by_name)
    if names[0] is not None and relations[0] is not None and not any(names[1:]):
        return _set([_value(relations[0].sides[-1]), *map(_item, parts[1:])])
    return _set([_item(part) for part in parts])


def _item(text: str) -> Term:
    relation = relation_of(text)
    if relation is None:
        return _value(text)
    if len(relation.sides) > 2 and set(relation.operators) == {"="} and relation.name is None:
        return _item(relation.sides[-1])  # a calculation, whose result is the answer
    if relation.composed:
        return _value(relation.sides[-1])
    if relation.name is not None and not _free_symbols(relation.sides[-1]):
        value = _value(relation.sides[-1])
        if relation.operators == ("in",):
            return value
        return value if Names.is_unknown(relation.name) else ("named", (relation.name, value))
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
        return _set([_value(each) for each in _signed(text)])
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
    if unit and _CURRENCY_COMMA.fullmatch(value):
        value = value.replace(",", ".")
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
        return _set(_elements(parts)) if opening == r"\{" or len(parts) > 1 else _value(inner)
    if len(parts) == 1:
        return _value(inner) if opening == "(" and closing == ")" and inner.strip() else None
    if opening + closing == "[]" and len(parts) > 2:
        return "list", *map(_value, parts)
    if len(parts) == 2 and opening + closing != "()":
        return regions.interval_term(opening, _value(parts[0]), _value(parts[1]), closing)
    return "tuple", *map(_value, parts)


def _elements(parts: list[str]) -> Iterator[Term]:
    return (_item(part) for part in parts if part.strip())


def _set(values: Any) -> Term:
    """A set of terms; one of a single term is that term, and sets inside are part of it."""
    elements: set[Term] = set()
    for value in values:
        elements |= set(value[1:]) if value[0] == "set" else {value}
    return next(iter(elements)) if len(elements) == 1 else ("set", *sorted(elements, key=repr))


def _signed(text: str) -> tuple[str, str]:
    if len(_SIGNS.findall(text)) > MAX_SIGNS:
        raise NotAFormula(text)
    upper = _SIGNS.sub(lambda sign: "+" if sign[1] == "pm" else "-", text)
    return upper, _SIGNS.sub(lambda sign: "-" if sign[1] == "pm" else "+", text)
