"""One way to write what can be written in many: TeX styling, Unicode's mathematical characters, spaces.

Everything here is linear in the answer's length and keeps its meaning.
"""

import re
import unicodedata

from kinetics_serve.answers.words import in_figures

_CHARACTERS = {
    "−": "-",
    "–": "-",
    "‐": "-",
    "‑": "-",
    "×": r"\times ",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "Ω": r"\Omega ",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∖": r"\setminus ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "，": ",",
    "、": ",",
    "；": ";",
    "。": ".",
    "…": r"\dots ",
    "“": '"',
    "”": '"',
    "’": "'",
    "‘": "'",
}
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_SUPER = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_SUB = re.compile(f"[{''.join(_SUBSCRIPTS)}]+")
_VULGAR = re.compile(r"(\d\s*)?([¼-¾⅐-⅞↉])")
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[a-zA-Z]|\([^()]*\))")
_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}

_SPACES = re.compile(r"(?<!\\)\\(?:[,;:!> ]|q?quad|(?:enspace|thinspace|hfill)(?![a-zA-Z]))|~|[\u00a0\u2009\u202f]")
_STYLING = re.compile(
    r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|bf|limits|mathstrut|middle)(?![a-zA-Z])\.?"
    r"|\\(?:text)?color\s*\{[^{}]*\}"
    r"|\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered)\*?\}"
)
_ARRAY = re.compile(r"\\(begin|end)\{(?:array|smallmatrix)\}(?:\{[^{}]*\})?")
_DELIMITERS = re.compile(r"(?<!\\)\\[()\[\]]|\$")
_ESCAPED_TWICE = re.compile(r"\\\\(?=[a-zA-Z{}%$])")
_ROWS = re.compile(r"\\begin\{(?:[a-zA-Z]*matrix|array|cases)")
_SYNONYMS = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "nicefrac": "frac",
    "sfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "colon": ":",
    "leq": "le",
    "leqslant": "le",
    "geq": "ge",
    "geqslant": "ge",
    "neq": "ne",
    "lg": "log",
    "lt": "<",
    "gt": ">",
    "lbrace": r"\{",
    "rbrace": r"\}",
    "lbrack": "[",
    "rbrack": "]",
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "mid": "|",
    "varnothing": "emptyset",
    "bigcup": "cup",
    "to": "rightarrow",
    "ldots": "dots",
    "cdots": "dots",
    "degree": r"^\circ",
    "textdegree": r"^\circ",
    "infin": "infty",
    "thickapprox": "approx",
    "simeq": "approx",
    "backslash": "setminus",
    "imath": "i",
    "N": r"\mathbb{N}",
    "R": r"\mathbb{R}",
    "Z": r"\mathbb{Z}",
    "Q": r"\mathbb{Q}",
}
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
_ASCII = (
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!=|<>|=/="), r"\\ne "),
    (re.compile(r"\.\.\.+"), r"\\dots "),
)
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|textnormal|texttt|mathrm|mathbf|mathit|mathsf|mbox|hbox|operatorname|emph|"
    r"boldsymbol|bm|fbox|boxed)\s*\{([^{}]*)\}"
)
_FRAC = re.compile(r"\\frac\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))\s*([0-9a-zA-Z])")
_FRAC_FIRST = re.compile(r"\\frac\s*([0-9a-zA-Z])\s*\{")
_SQRT = re.compile(r"\\?sqrt\s*(?:\(([^()]*)\)|([0-9a-zA-Z]))")
_BARE_SQRT = re.compile(r"(?<!\\)\bsqrt\b")
_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?: ?\{ ?, ?\}|,\\!|\\[,!: ]|[ \u00a0\u2009\u202f'’])[ ]?\d{3})+(?!\d)")
_NO_DIGIT = re.compile(r"\D")
_POINTED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d{1,2})(?![\d.,]*\d)")
"""Thousands with points: 1.234.567 and 1.234,56, which nothing else can mean."""
_DOLLAR_NAME = re.compile(r"(?<![A-Za-z])US\s*\\?\$")
_BRACED_COMMA = re.compile(r"(\d)\s*\{\s*,\s*\}\s*(\d)")
_LETTERS = re.compile(r"\s*[A-J](?:\s*(?:,|and|or|,\s*and)\s*[A-J])+\s*")
_RANGE = re.compile(r"(?:\\?\$([\d.,]+)\s*[-–]\s*\\?\$([\d.,]+)|([\d.,]+)\\?%\s*[-–]\s*([\d.,]+)\\?(%))")
_LINE_BREAK = re.compile(r"(?:\s*\\\\)+\s*$")
_POWER = re.compile(r"(?<=[\w)])\*\*(?=[\w(-])")
_EMPHASIS = re.compile(r"\\(?:mathbf|mathcal|boldsymbol|bm|underline)\s*\{([^{}]*)\}")
_ROW_SPACE = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:mm|cm|pt|em|ex)\s*\]")
_OVER = re.compile(r"(?:(?<=\{)|^)([^{}]*)\\(over|choose)(?![a-zA-Z])([^{}]*)(?=\}|$)")
_OVERS = {"over": "frac", "choose": "binom"}
_DOTS = re.compile(r"(\.\d*)\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?(?!\d)")
_POWER_IN_PARENTHESES = re.compile(r"\^\s*\(((?:[^()]|\([^()]*\))*)\)(?!\s*\()")
_SIGNED_POWER = re.compile(r"\^\s*([-+])\s*(\d+(?:\.\d+)?|[a-zA-Z](?![a-zA-Z])|\([^()]*\)|\\[a-zA-Z]+)")
_LOG = re.compile(r"(?<![a-zA-Z\\])log_?(\d+)\s*(?=\()")
_LETTER_LOG = re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])(log|ln)\s*(?=\(|[a-zA-Z0-9](?![a-zA-Z]))")
_CHOOSE = re.compile(r"(?<![\w\\])(\d+|[a-zA-Z]) choose (\d+|[a-zA-Z])(?!\w)")
_INFINITY = re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf)(?=\s*[,)\]])")
_ANGLES = re.compile(r"<([^<>=]*,[^<>=]*)>")
_CROSS = re.compile(r"(?<=\d)(?:\s+x\s+(?=\d)|\s*x\s*(?=10\s*\^))")
_CUP = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_RAISED_O = re.compile(r"(?<=\d)\s*\^\s*(?:o(?![a-zA-Z])|\{\s*o\s*\})")
_NOON = re.compile(r"(?<![A-Za-z])([ap])\.\s?m(?:\.|(?![A-Za-z]))", re.I)

MAX_STYLES = 8
"""Styles around styles that are taken off: nobody nests more."""


def plain(answer: str) -> str:
    """The answer in the one notation that `structure` and `formula` read: ASCII and TeX without styling."""
    text = _DOLLAR_NAME.sub("$", answer)
    if found := _RANGE.fullmatch(text.strip()):
        text = f"{found[1] or found[3]}-{found[2] or found[4]}{found[5] or ''}"
    text = _POINTED.sub(lambda number: number[0].replace(".", "").replace(",", "."), text)
    text = _GROUPS.sub(lambda number: _NO_DIGIT.sub("", number[0]), text)
    text = _BRACED_COMMA.sub(r"\1.\2", text)
    text = _VULGAR.sub(_fraction, text)
    text = _SUPER.sub(lambda found: "^{" + "".join(map(_SUPERSCRIPTS.__getitem__, found[0])) + "}", text)
    text = _SUB.sub(lambda found: "_{" + "".join(map(_SUBSCRIPTS.__getitem__, found[0])) + "}", text)
    text = _ROOT.sub(lambda found: rf"\sqrt{_DEGREES[found[1]]}{{{found[2].strip('()')}}}", text)
    text = "".join([_CHARACTERS.get(character, character) for character in text])
    text = unicodedata.normalize("NFKC", text)
    text = _ROW_SPACE.sub(r"\\\\", text)
    if not _ROWS.search(text):
        text = _ESCAPED_TWICE.sub(r"\\", text)
    text = text.replace(r"\%", "%").replace(r"\$", "")
    text = _ARRAY.sub(r"\\\1{pmatrix}", text)
    text = _COMMAND.sub(_synonym, _STYLING.sub(" ", text))
    text = _DELIMITERS.sub(" ", _SPACES.sub(" ", text))
    for pattern, command in _ASCII:
        text = pattern.sub(command, text)
    text = _DOTS.sub(r"\1\\overline{\2\3\4}", _EMPHASIS.sub(r" \1 ", text))
    text = _OVER.sub(lambda found: rf"\{_OVERS[found[2]]}{{{found[1]}}}{{{found[3]}}}", text)
    text = _NOON.sub(r"\1m", _RAISED_O.sub(r"^\\circ ", text))
    text = _CUP.sub(r"\\cup ", _CROSS.sub(r"\\times ", text))
    text = _POWER_IN_PARENTHESES.sub(r"^{\1}", _POWER.sub("^", text))
    text = _SIGNED_POWER.sub(r"^{\1\2}", text)
    text = _LETTER_LOG.sub(r"\1 \\\2 ", _LOG.sub(r"\\log_{\1}", text))
    text = _INFINITY.sub(r"\\infty ", _CHOOSE.sub(r"\\binom{\1}{\2}", text))
    if angles := _ANGLES.fullmatch(text.strip()):
        text = rf"\langle {angles[1]} \rangle"
    text = _FRAC_FIRST.sub(r"\\frac{\1}{", text)
    text = _FRAC.sub(lambda found: rf"\frac{{{found[1] or found[2]}}}{{{found[3]}}}", text)
    text = _SQRT.sub(lambda found: r"\sqrt{" + (found[1] or found[2]) + "}", text)
    text = _BARE_SQRT.sub(r"\\sqrt", text)
    text = _LINE_BREAK.sub("", " ".join(text.split()))
    if (styled := _TEXT.fullmatch(text)) and _LETTERS.fullmatch(styled[1]):
        return styled[1].strip()
    return in_figures(text)


def unstyled(text: str) -> str:
    """The text without `\\text{…}` and its like around parts of it; the parts stand apart by spaces."""
    for _ in range(MAX_STYLES):
        bare = _TEXT.sub(r" \1 ", text)
        if bare == text:
            break
        text = bare
    return " ".join(text.split())


def _fraction(found: re.Match[str]) -> str:
    top, _, bottom = unicodedata.normalize("NFKC", found[2]).partition("\u2044")
    return f"{(found[1] or '').strip()}\\frac{{{top}}}{{{bottom}}}"


def _synonym(found: re.Match[str]) -> str:
    name = _SYNONYMS.get(found[1])
    if name is None:
        return found[0]
    return f"\\{name}" if name.isalpha() and name != "i" else name
