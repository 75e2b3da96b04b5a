"""Equations and inequalities: what they name, and their normal forms."""

import re
from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import Any, NamedTuple

import sympy

from kinetics_serve.answers import formula, names, regions
from kinetics_serve.answers.brackets import depths, split_at
from kinetics_serve.answers.formula import NotAFormula
from kinetics_serve.answers.terms import Term, set_of

_OPERATOR = re.compile(r"(?<![a-zA-Z\\])=|[<>]|\\(?:le|ge|ne|in|approx)(?![a-zA-Z])|=")
_APPROXIMATION = re.compile(r"\\approx(?![a-zA-Z])")
OR = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*or\s*\}|\\(?:lor|vee)(?![a-zA-Z])|(?<![a-zA-Z\\{])or(?![a-zA-Z}])"
)
AND = re.compile(
    r"\\(?:text|mbox|textrm|mathrm)\s*\{\s*and\s*\}|\\(?:land|wedge)(?![a-zA-Z])|(?<![a-zA-Z\\{])and(?![a-zA-Z}])"
)
_WHOLE = re.compile(r"-?\d{1,15}")
_CONGRUENCE = re.compile(
    rf"(?:[a-zA-Z]\s*(?:\\equiv|=)\s*)?(?P<residues>{_WHOLE.pattern}(?:\s*(?:,\s*)?(?:,|and|or)\s*{_WHOLE.pattern})*)"
    r"\s*\(?\s*\\?[pb]?mod(?![a-z])\s*\{?\s*(?P<modulus>\d{1,15})\s*\}?\s*\)?"
)
ORDERS = frozenset({"<", "le", ">", "ge"})


class Relation(NamedTuple):
    """sides: between operators, in plain notation. name: that of a value, as its left side gives it (see `names`).
    composed: whether that left side is more than a letter, so that it says nothing where the value stands alone.
    """

    sides: tuple[str, ...]
    operators: tuple[str, ...]
    name: str | None
    composed: bool


def exact(text: str) -> str:
    """The text without the approximation after a value; one that follows a name is its value."""
    value, *approximations = split_at(text, _APPROXIMATION)
    if not approximations:
        return text
    return f"{value} = {approximations[0]}" if names.name(value) is not None else value


def relation_of(text: str) -> Relation | None:
    """The relation that a text is; None where it is none."""
    text = exact(text)
    sides = split_at(text, _OPERATOR)
    if len(sides) == 1:
        return None
    operators = tuple(found[0].strip("\\") for found in _operators(text))
    if not all(sides):
        raise NotAFormula(text)
    equal = set(operators) == {"="} or operators == ("in",)
    return Relation(
        tuple(sides), operators, names.name(sides[0]) if equal else None, equal and names.is_composed(sides[0])
    )


def equation(expressions: Sequence[Any]) -> Term:
    """The term of an equation between the first and the last of its sides."""
    difference = expressions[0] - expressions[-1]
    form = formula.up_to_factor(difference)
    if len(form.free_symbols) == 1:
        (symbol,) = form.free_symbols
        if form.is_polynomial(symbol) and sympy.degree(form, symbol) == 1:
            value = formula.written(formula.normal(sympy.expand(symbol - form)))
            return value if names.is_unknown(symbol.name) else ("named", (symbol.name, value))
    return "equation", formula.written(form)


def inequality(expressions: Sequence[Any], operators: Sequence[str]) -> Term:
    """The term of a chain of inequalities: its solutions, where it has one unknown."""
    if operators[0] in (">", "ge"):
        expressions, operators = expressions[::-1], [_flipped(operator) for operator in operators[::-1]]
    if not set(operators) <= {"<", "le"}:
        raise NotAFormula("inequalities in both directions")
    unknown = the_unknown(expressions)
    if unknown is not None:
        return regions.written(solutions(expressions, operators, unknown))
    if len(expressions) == 2:
        form = formula.normal(expressions[1] - expressions[0])
        top, bottom = sympy.fraction(form)
        if not bottom.free_symbols and top.free_symbols:
            form = sympy.expand(top / abs(sympy.Poly(top).LC()))
        return "positive", operators[0], formula.written(form)
    return "ascending", *operators, *map(formula.written, expressions)


def solutions(expressions: Sequence[Any], operators: Sequence[str], unknown: Any) -> Any:
    """The set of what solves a chain of inequalities in one unknown, all of which look the same way."""
    real = sympy.Symbol("unknown", real=True)
    sides = [expression.xreplace({unknown: real}) for expression in expressions]
    found = sympy.S.Reals
    for left, right, operator in zip(sides, sides[1:], operators, strict=False):
        relation = {"<": left < right, "le": left <= right, ">": left > right, "ge": left >= right}[operator]
        found &= relation.as_set()
    return found


def joined_inequalities(text: str) -> Term | None:
    """The solutions of inequalities in one unknown that "or" or "and" join; None for anything else."""
    for word, join in ((OR, or_), (AND, and_)):
        parts = split_at(text, word)
        relations = [relation_of(part) for part in parts] if len(parts) > 1 else []
        if not relations or not all(each is not None and set(each.operators) <= ORDERS for each in relations):
            continue
        chains = [([formula.expression(side) for side in each.sides], each.operators) for each in relations if each]
        unknown = the_unknown([side for sides, _ in chains for side in sides])
        if unknown is not None:
            return regions.written(reduce(join, [solutions(sides, order, unknown) for sides, order in chains]))
    return None


def congruence(text: str) -> Term | None:
    """The residue classes that a text names: `x \\equiv 2 \\pmod 5`, `2 (mod 5)`; None for anything else."""
    found = _CONGRUENCE.fullmatch(text)
    if found is None or not (modulus := int(found["modulus"])):
        return None
    residues = [int(each) % modulus for each in _WHOLE.findall(found["residues"])]
    return set_of([("residue", str(residue), str(modulus)) for residue in residues])


def the_unknown(expressions: Sequence[Any]) -> Any:
    """The one unknown of expressions; None where there are none or several."""
    unknowns = set().union(*[_unknowns(expression) for expression in expressions])
    return next(iter(unknowns)) if len(unknowns) == 1 else None


def subject(relation: Relation) -> str | None:
    """What a relation is about: what its left side names, or its one unknown. None where it has several."""
    if relation.name is not None:
        return relation.name
    try:
        unknown = the_unknown([formula.expression(side) for side in relation.sides])
    except NotAFormula:
        return None
    return str(unknown) if unknown is not None else None


def _operators(text: str) -> list[re.Match[str]]:
    depth = depths(text)
    return [found for found in _OPERATOR.finditer(text) if depth[found.start()] == 0]


def _flipped(operator: str) -> str:
    return {">": "<", "ge": "le", "<": ">", "le": "ge"}[operator]


def _unknowns(expression: Any) -> set[Any]:
    functions: set[Any] = expression.atoms(sympy.core.function.AppliedUndef)
    inside = set().union(*[function.free_symbols for function in functions])
    return functions | set(expression.free_symbols - inside)
