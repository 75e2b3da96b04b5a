"""Equations and inequalities: what they name, and their normal forms."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import sympy

from kinetics_serve.answers import formula, regions
from kinetics_serve.answers.brackets import depths, split_at
from kinetics_serve.answers.formula import NotAFormula

Term = str | tuple[Any, ...]

_OPERATOR = re.compile(r"(?<![a-zA-Z\\])=|[<>]|\\(?:le|ge|ne|in|approx)(?![a-zA-Z])|=")
_APPROXIMATION = re.compile(r"\\approx(?![a-zA-Z])")
_NAME = re.compile(r"\\?([a-zA-Z]+?)(?:_(?:\{\s*(\w+)\s*\}|(\w)))?")
_GREEK = re.compile(r"\\(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega|sigma|rho|tau)")
_COMPOSED = re.compile(
    r"[a-zA-Z]\s*\(\s*[a-z](?:\s*,\s*[a-z])*\s*\)"  # f(x)
    r"|\|\s*[A-Z]{1,3}\s*\||[A-Z]{2,4}|\\overline\s*\{[A-Z]+\}"  # |AB|, AB
    r"|(?:m\s*)?\\angle.*"
    r"|\\frac\s*\{[A-Z]{2,}\}\s*\{[A-Z]{2,}\}|[A-Z]{2,}\s*/\s*[A-Z]{2,}"  # ratios of lengths
    r"|[A-Za-z][\w{}]*\s*:\s*[A-Za-z][\w{}]*"
    r"|\(\s*[a-z](?:\s*,\s*[a-z])+\s*\)"  # (x, y)
    r"|\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*[a-zA-Z]{2}[^{}]*\}|[a-zA-Z]{3,}(?: [a-zA-Z]+){0,5}"
)
ORDERS = frozenset({"<", "le", ">", "ge"})
_UNKNOWNS = frozenset("xnkt")


class Relation(NamedTuple):
    """sides: between operators, in plain notation. name: what a lone name on its left names. composed: whether the left
    side is a function's value, a length, a ratio, a pair of names or words, which say nothing beside the right side.
    """

    sides: tuple[str, ...]
    operators: tuple[str, ...]
    name: str | None
    composed: bool


class Names:
    """What names of values mean."""

    @staticmethod
    def is_unknown(name: str) -> bool:
        """Whether a name is that of the one unknown: x, n, k or t, so that `x = 5` says no more than 5.

        Other letters tell quantities apart: `a = 3` is neither 3 nor `b = 3`.
        """
        return name in _UNKNOWNS

    @staticmethod
    def enumerate_one(names: Sequence[str]) -> bool:
        """Whether names count the values of one unknown: the same name again and again, or x_1, x_2, …"""
        if len(set(names)) == 1:
            return Names.is_unknown(names[0]) or len(names) > 1
        bases = {name.partition("_")[0] for name in names}
        numbers = [name.partition("_")[2] for name in names]
        return len(bases) == 1 and bases <= _UNKNOWNS and sorted(numbers) == [str(n + 1) for n in range(len(names))]


def relation_of(text: str) -> Relation | None:
    """The relation that a text is; None where it is none. An approximation after a value is left out."""
    exact = split_at(text, _APPROXIMATION)
    if len(exact) > 1:
        named = _name(exact[0]) is not None or _COMPOSED.fullmatch(exact[0])
        text = f"{exact[0]} = {exact[1]}" if named else exact[0]
    sides = split_at(text, _OPERATOR)
    if len(sides) == 1:
        return None
    operators = tuple(found[0].strip("\\") for found in _operators(text))
    if not all(sides):
        raise NotAFormula(text)
    equal = set(operators) == {"="} or operators == ("in",)
    name = _name(sides[0]) if equal else None
    return Relation(tuple(sides), operators, name, equal and bool(_COMPOSED.fullmatch(sides[0])))


def equation(expressions: Sequence[Any]) -> Term:
    """The term of an equation between the first and the last of its sides."""
    difference = expressions[0] - expressions[-1]
    form = formula.up_to_factor(difference)
    if len(form.free_symbols) == 1:
        (symbol,) = form.free_symbols
        if form.is_polynomial(symbol) and sympy.degree(form, symbol) == 1:
            value = formula.written(formula.normal(sympy.expand(symbol - form)))
            return value if Names.is_unknown(symbol.name) else ("named", (symbol.name, value))
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


def the_unknown(expressions: Sequence[Any]) -> Any:
    """The one unknown of expressions; None where there are none or several."""
    unknowns = set().union(*[_unknowns(expression) for expression in expressions])
    return next(iter(unknowns)) if len(unknowns) == 1 else None


def _operators(text: str) -> list[re.Match[str]]:
    depth = depths(text)
    return [found for found in _OPERATOR.finditer(text) if depth[found.start()] == 0]


def _flipped(operator: str) -> str:
    return {">": "<", "ge": "le", "<": ">", "le": "ge"}[operator]


def _unknowns(expression: Any) -> set[Any]:
    functions: set[Any] = expression.atoms(sympy.core.function.AppliedUndef)
    inside = set().union(*[function.free_symbols for function in functions])
    return functions | set(expression.free_symbols - inside)


def _name(text: str) -> str | None:
    text = text.strip()
    if _GREEK.fullmatch(text):
        return text.lstrip("\\")
    found = _NAME.fullmatch(text)
    if found is None or len(found[1]) > 1 or found[1] in "ei" or text.startswith("\\"):
        return None
    index = found[2] or found[3]
    return f"{found[1]}_{index}" if index else found[1]
