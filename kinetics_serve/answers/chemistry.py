"""Chemical formulas: H2O, H_2O, H₂O and \\text{H}_2\\text{O} are one."""

import re

from kinetics_serve.answers.notation import unstyled

_ELEMENT = (
    r"(?:A[cglmrstu]|B[aehikr]?|C[adeflmnorsu]?|D[bsy]|E[rsu]|F[elmr]?|G[ade]|H[efgos]?|I[nr]?|Kr?|L[airuv]|M[cdgnot]|"
    r"N[abdehiop]?|O[gs]?|P[abdmortu]?|R[abefghnu]|S[bcegimnr]?|T[abcehilms]|U|V|W|Xe|Yb?|Z[nr])"
)
_ATOMS = rf"(?:{_ELEMENT}\d{{0,3}})+"
_FORMULA = re.compile(rf"(?:{_ATOMS}|\((?:{_ATOMS})\)\d{{0,3}})+(?:\^\d?[+-])?")
_MOLECULES = frozenset(("H2", "N2", "O2", "O3", "F2", "Cl2", "Br2", "I2", "P4", "S8"))
_MARKS = re.compile(r"[_{}\s]")
_CAPITALS = re.compile("[A-Z]")


def chemical_formula(text: str) -> str | None:
    """The formula without marks of subscripts; None for what is none, or may as well be a product: no numbers in it.

    text: in plain notation.
    """
    bare = _MARKS.sub("", unstyled(text))
    if not _FORMULA.fullmatch(bare) or not any(map(str.isdecimal, bare)):
        return None
    return bare if len(_CAPITALS.findall(bare)) > 1 or bare in _MOLECULES else None
