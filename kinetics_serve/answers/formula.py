"""One expression, read by math-verify's parser and brought into a normal form.

Two expressions are the same answer if they have the same normal form. Everything in it is exact: decimals are
fractions, and nothing is ever compared as a float, so expressions that differ never share one. Some that are equal have
two.
It can take arbitrarily long on hostile input, and imports SymPy: `algebra` runs it where it can be killed.
"""

import re
from functools import lru_cache
from math import prod
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from sympy.core.function import AppliedUndef
from sympy.functions.elementary.trigonometric import TrigonometricFunction

from kinetics_serve.answers.equivalence import decimal, number, root_of

MAX_BITS = 1 << 20
"""Of a number that is worked out. What is larger stays as it is written."""

MAX_FACTORIAL = 20_000
MAX_SURD_DEGREE = 12
"""Of the minimal polynomials that algebraic numbers are known by: larger ones take too long to find."""

ROOT_DIGITS = 50
"""Of an algebraic number, to tell which root of its minimal polynomial it is: they lie further apart."""

_CONFIG = ConversionConfig(lowercase_symbols=False)
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|lg|exp|max|min|gcd|lcm|det|binom|frac|sqrt"
)
_KNOWN = re.compile(
    rf"{_FUNCTIONS}|alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma"
    r"|tau|upsilon|(?:var)?phi|chi|psi|omega|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega|ell"
    r"|cdot|times|div|infty|lfloor|rfloor|lceil|rceil|overline|bar|hat|vec|sum|prod|int"
)
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_OTHER_COMMAND = re.compile(r"\\[^a-zA-Z]")
_LETTERS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_BARE_FUNCTION = re.compile(rf"(?<![\\a-zA-Z])({_FUNCTIONS}|pi|infty)(?![a-zA-Z])")
_SHORT_WORDS = re.compile("is|it|of|am|pm|no|or|if|in|to|at|by|we|he|so|as|an|up|do|go|my|on|us|be|me", re.I)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"

_UNREADABLE = re.compile(
    r"['`\"?:;#@~]|!!|\d\s+[\d.]|\d_|(?<![a-zA-Z\\])I(?![a-zA-Z])|(?<!\\)(?<![a-zA-Z\\])[a-zA-Z]\d"
    r"|\\frac\s*\{\s*d(?:\s*\^\s*\{?\d\}?)?\s*[a-zA-Z]\s*\}\s*\{\s*d\s*[a-zA-Z]"
    r"|(?<![a-zA-Z\\])d[a-zA-Z]\s*/\s*d[a-zA-Z]"
    r"|^\s*\+?\d+(?:-\d+)+\s*$|^\s*\d{1,4}/\d{1,2}/\d{1,4}\s*$|\d\.\d+\.\d"
)
"""What the parser would misread: primes, ratios, times, numbers that merely stand side by side, bases, I, B2, dy/dx,
ranges, numbers of telephones, dates, and versions.
"""

_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{\s*(\d+)\s*\}")
_AND_SO_ON = re.compile(r"(\d*)\.(\d*?)(\d{1,6}?)\3{2,}\s*\\dots(?![a-zA-Z])")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})")
_SCIENTIFIC = re.compile(r"(?<![\w.}])(\d+(?:\.\d+)?)[eE]([-+]?\d{1,4})(?![\w.])")
_DECIMAL = re.compile(r"(\^\s*)?(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_LOGARITHM = re.compile(r"\\log_\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(\d+)(?![\d.])")
_MIXED = re.compile(r"(?<![\w.}/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\w.])")
_PER_CENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*%")
_PRODUCT = re.compile(r"(?<![\w}^.])(\d+)\s*(?=\()")
_LETTER_PRODUCT = re.compile(r"(\))\s*(?=\d)")
_FACTOR = r"(?=\s*(?:[a-zA-Z(]|\\(?!cdot|times|div|end|rfloor|rceil)[a-zA-Z]))"
_FRACTION = re.compile(rf"(?<![\w.}}/)^])(\d+\s*/\s*\d+)(?!\d){_FACTOR}|(/\s*\d+)\s+{_FACTOR}")
"""What a factor follows, which is none of its denominator: 1/2 x, π/2 x and 1/2x are halves."""

_UPRIGHT = re.compile(r"\\(?:mathrm|text|mathit|operatorname)\s*\{\s*([a-zA-Z])\s*\}")
_MATRIX = re.compile(r"\\(?:begin|end)\{[bpv]?matrix\}|[&]|\\\\")
_ENDS = re.compile(r"[\s.,;]+$")


class NotAFormula(ValueError):
    """A text that is not one expression."""


@lru_cache(maxsize=1024)
def expression(text: str) -> Any:
    """The expression that a text in plain notation denotes, in normal form. Raises NotAFormula."""
    readable = _readable(text)
    try:
        parsed = latex2sympy(
            readable, is_real=True, convert_degrees=False, normalization_config=None, conversion_config=_CONFIG
        )
    except Exception:  # the parser's own, and whatever SymPy makes of a stranger's text
        raise NotAFormula(text) from None
    if isinstance(parsed, sympy.MatrixBase | sympy.MatrixExpr):
        return sympy.Matrix(parsed.doit()).applyfunc(normal)
    if not isinstance(parsed, sympy.Expr):
        raise NotAFormula(text)
    return normal(parsed)


def normal(parsed: Any) -> Any:
    """The normal form of an expression; the expression itself where it is too large to be worked out."""
    if not _is_small(parsed):
        return sympy.UnevaluatedExpr(parsed)
    imaginary = {symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"}
    exact = parsed.xreplace(imaginary).replace(lambda part: part.is_Float, sympy.nsimplify)
    value = exact if _sums_over_indices(exact) else exact.doit()
    if value.has(sympy.nan, sympy.zoo):
        raise NotAFormula(str(parsed))
    if value.is_Rational or value in (sympy.oo, -sympy.oo):
        return value
    return _algebraic(value) if not value.free_symbols and value.is_algebraic else _rational_function(value)


def written(value: Any) -> str:
    """A normal form as text: the same for the same form."""
    if value.is_Rational:
        return number(int(value.p), int(value.q))
    return str(sympy.sstr(value, full_prec=False))


def up_to_factor(value: Any) -> Any:
    """The normal form of what is zero where `value` is, whatever constant it is multiplied by."""
    value = normal(value)
    top, bottom = sympy.fraction(value)
    if bottom.free_symbols or not top.free_symbols:
        return value
    polynomial = sympy.Poly(top)
    return sympy.expand(sympy.radsimp((top / polynomial.LC()).expand()))


def _readable(text: str) -> str:
    text = _UPRIGHT.sub(r" \1 ", _ENDS.sub("", text))
    text = _AND_SO_ON.sub(_repeated, _REPEATING.sub(_repeated, text))
    text = _DEGREES.sub(r"(\\frac{\1}{180}\\pi)", _PER_CENT.sub(r"\\frac{\1}{100}", text))
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    text = _FRACTION.sub(r"\1\2\\cdot ", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _LOGARITHM.sub(lambda log: rf"\log_{{{log[1] or log[2]}}}{{{log[3]}}}", _DECIMAL.sub(_decimal, text))
    text = _BARE_FUNCTION.sub(r"\\\1 ", text)
    text = _LETTER_PRODUCT.sub(r"\1\\cdot ", _PRODUCT.sub(r"\1\\cdot ", text)).replace("*", r"\cdot ")
    if not text or _UNREADABLE.search(text) or _OTHER_COMMAND.search(_MATRIX.sub("", text)):
        raise NotAFormula(text)
    if not all(_KNOWN.fullmatch(command) for command in _COMMAND.findall(_MATRIX.sub("", text))):
        raise NotAFormula(text)
    if any(map(_is_word, _LETTERS.findall(_MATRIX.sub("", text)))):
        raise NotAFormula(text)
    return text


def _is_word(letters: str) -> bool:
    return bool(_SHORT_WORDS.fullmatch(letters)) or (len(letters) > 2 and letters.lower() not in _ALPHABET)


def _repeated(found: re.Match[str]) -> str:
    whole, fixed, period = found[1] or "0", found[2], found[3]
    top = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{top}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _decimal(found: re.Match[str]) -> str:
    text = f"{found[2]}.{found[3]}"
    if (square := root_of(text)) is not None:
        return rf"\sqrt{{\frac{{{square.numerator}}}{{{square.denominator}}}}}"
    value = decimal(text)
    fraction = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    return f"{found[1]}{{{fraction}}}" if found[1] else fraction


def _is_small(expression: Any) -> bool:
    return all(_bits(part) <= MAX_BITS for part in sympy.postorder_traversal(expression))


def _bits(part: Any) -> float:
    """About how many bits the value of a power or factorial of numbers has; 0 for everything else."""
    if isinstance(part, sympy.factorial) and part.args[0].is_number:
        argument = part.args[0]
        return 0 if argument.is_Integer and abs(argument) <= MAX_FACTORIAL else float("inf")
    if isinstance(part, sympy.Pow) and part.base.is_number and part.exp.is_number:
        if any(isinstance(each, sympy.Pow | sympy.factorial) for each in sympy.preorder_traversal(part.exp)):
            exponent = part.exp.doit() if _is_small(part.exp) else sympy.oo
        else:
            exponent = part.exp.doit()
        if not exponent.is_Rational:
            return float("inf") if exponent.is_infinite else 0
        base = part.base.doit() if _is_small(part.base) else sympy.oo
        size = base.p.bit_length() + base.q.bit_length() if base.is_Rational else 64
        return abs(float(exponent)) * size if abs(exponent) < 10**9 else float("inf")
    return 0


def _sums_over_indices(expression: Any) -> bool:
    """Whether it sums terms such as F_k, which the parser takes for constants."""
    return bool(expression.has(sympy.Sum, sympy.Product, sympy.Integral)) and any(
        "_" in symbol.name for symbol in expression.free_symbols
    )


def _algebraic(value: Any) -> Any:
    """Sums of square roots as they are, for they have one form; other algebraic numbers by minimal polynomials."""
    surd = sympy.expand(sympy.radsimp(sympy.sqrtdenest(sympy.expand(value))))
    if all(_is_surd(term) for term in sympy.Add.make_args(surd)):
        return surd
    if prod([int(power.exp.q) for power in surd.atoms(sympy.Pow) if power.exp.is_Rational]) > MAX_SURD_DEGREE:
        return surd
    unknown = sympy.Dummy("x")
    polynomial = sympy.Poly(sympy.minimal_polynomial(value, unknown), unknown)
    if polynomial.degree() <= 2:
        roots = [sympy.expand(root) for root in sympy.roots(polynomial)]
    else:
        roots = polynomial.nroots(n=ROOT_DIGITS, maxsteps=200)
    near = value.evalf(ROOT_DIGITS)  # not the difference's, whose digits are sought in vain where it is zero
    distances = sorted((abs(root.evalf(ROOT_DIGITS) - near), index) for index, root in enumerate(roots))
    if len(distances) > 1 and not distances[0][0] * 10**10 < distances[1][0]:
        return surd
    nearest = roots[distances[0][1]]
    if polynomial.degree() <= 2:
        return sympy.expand(sympy.radsimp(nearest))
    coefficients = tuple(map(sympy.Integer, sympy.Poly(polynomial.primitive()[1], unknown).all_coeffs()))
    return sympy.Function("root")(*coefficients, sympy.Integer(distances[0][1]))


def _is_surd(term: Any) -> bool:
    factors = sympy.Mul.make_args(term)
    roots = [factor for factor in factors if not factor.is_Rational and factor is not sympy.I]
    return len(roots) <= 1 and all(
        root.is_Pow and root.exp == sympy.Rational(1, 2) and root.base.is_Integer and root.base > 0 for root in roots
    )


def _rational_function(value: Any) -> Any:
    """A quotient of polynomials in symbols, functions and constants, with trigonometry as exponentials."""
    value = sympy.expand_log(value, force=True, factor=True)
    functions = [each for each in value.atoms(TrigonometricFunction) if each.free_symbols]
    value = sympy.expand(value.xreplace({each: each.rewrite(sympy.exp) for each in functions}))
    value = value.replace(lambda part: isinstance(part, AppliedUndef), lambda part: part.func(*map(normal, part.args)))
    top, bottom = sympy.fraction(sympy.cancel(sympy.together(value)))
    top, bottom = sympy.expand(top), sympy.expand(bottom)
    leading = sympy.Poly(bottom).LC() if bottom.free_symbols else sympy.Integer(1)
    if leading.is_number and not leading.is_Rational:
        top, bottom = sympy.expand(sympy.radsimp(top / leading)), sympy.expand(sympy.radsimp(bottom / leading))
    return top / bottom
