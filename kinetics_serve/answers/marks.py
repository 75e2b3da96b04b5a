"""What a text marks as its answer: "The answer is …", "Answer: …", "#### …", "<answer>…</answer>"."""

import re

import re2

from kinetics_serve.answers.boxes import boxed
from kinetics_serve.answers.compounds import leading_compound
from kinetics_serve.answers.expressions import FORMULA, PER_CENT, inside, last_expression
from kinetics_serve.answers.numerals import leading_number

_WORDS = (
    r"answers?|\bans\b\.?|antwort|lösung|ergebnis|réponse|respuesta|risposta|resposta|odpowiedź|antwoord|\bsvar\b|\bcevap|"
    r"đáp án|ответ|उत्तर|الإجابة|الجواب|答案|答え|正解|정답|답"
)
_MARK = re2.compile(
    rf"(?i)(?:{_WORDS})(?:[^\n.:：=?!$\\]{{0,60}}?\s(?:is|are|ist|lautet|est|es|è|é|هي|هو)\b(?:\s*[:：])?"
    r"|\s*(?:是|为|は|은|는)\s*[:：]?|[^\n.:：=?!$\\]{0,40}[:：=]|\s*[—–→]\s|\s+-\s|\s*\*\*\s*\n)[ \t]*"
    r"|(?:故选|应选|因此选|所以选)\s*[:：]?[ \t]*"
)
_HASHES = re2.compile(r"####[ \t]*([-+−$€£]?[ \t]*[\d.\\].*)|####[ \t]*([^\s#].*)\s*\z")
"""Headings begin with hashes too, but no text ends with one."""
_TAG = re.compile(r"<answer>([^<]{1,1000})</answer>", re.I)
_FINAL = re.compile(r"(?i)(?:final|correction:?(?: the)?)\s+$")
_AND_FORMULA = re.compile(r"\s*(?:,?\s*(?:and|or)\s+|,\s*)(?=\$|\\[(\[])")
_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTER = re.compile(
    r"(?:(?:la|le|el|die|das)\s+)?[(\[]?([A-J])[)\]]?[.:]?(?:\s*$|\s*[,.]\s|[。，、．]|\s?(?:です|입니다))"
)
_VERDICT = re.compile(r"(?i)(yes|no|true|false)\b(?=[*_]*(?:[,;:!]|\.(?! ?\d)|$| (?:because|since|as)\b))")
_STYLE = re.compile(r"</?(?:b|strong|i|em|code)>")
_FRAME = '*_`"“” \t✅✔☑'
_SENTENCE_END = re.compile(
    r"[.。!](?=\s|$|[\"”])|[，；]|, (?:which|because|since|as|so|where|that|weil|denn|porque|car)\b"
)
SEARCHED_CHARACTERS = 16_384
"""How much of a text's end is searched for marks."""

MAX_MARKED = 1000
MAX_TRIED = 16
MAX_NESTED = 3
"""Characters that a mark marks, marks that are tried from the last on, and marks within what a mark marks."""

MIN_SENTENCE_WORDS = 3
"""Of a marked sentence that says its answer in the middle: "Final Answer: the largest one is 34"."""

_NUMBER = r"[-−]?\d+(?:\.\d+)?(?:/\d+)?%?"
_NUMBERS = re.compile(rf"({_NUMBER}(?:(?:,? and |,? or |, ){_NUMBER})+)[.!]?$")
_FILLERS = re.compile(
    r"(?i)^(?:(?:therefore|thus|hence|then|simply|just|exactly|indeed|actually|clearly|now|equal to|given by|"
    r"only|the number|the same|as follows|(?:given |shown )?below|donc)\b[ ,:.]*)+"
    r"|^not\b[^.\n]{1,60}?,? but\b[ ,:]*"
)
"""What may stand before an answer and is no part of it."""
_DENIED = re.compile(r"not [\d$\\(]|\.\.+")
_SUM = re.compile(r"\A[\d\s.,$+*/×÷()−-]{1,80}=\s*(?=[-−]?[\d$])")
"""What adds up to the answer."""

_HOPE = re.compile(r"(?i)\s*\.?\s*I hope (?:it|this) is correct.*", re.S)


def marked(text: str) -> str | None:
    """What follows the last mark: the box, formulas, number or choice letter that it begins with, else its sentence."""
    found = last_mark(text)
    return found[0] if found is not None else None


def last_mark(text: str, only_final: bool = False) -> tuple[str, int] | None:
    """What `marked` says, and where the mark ends. only_final: of marks that say "final answer"."""
    for end, rest_start, final in _marks(text)[: -MAX_TRIED - 1 : -1]:
        if only_final and not final:
            continue
        answer = _answer(_rest(text, rest_start))
        if answer is not None:
            return answer, end
    return None


def _marks(text: str) -> list[tuple[int, int, bool]]:
    """Of every mark near the text's end: where it ends, where what it marks begins, and whether it is a final one."""
    first = max(0, len(text) - SEARCHED_CHARACTERS)
    marks = []
    for found in _MARK.finditer(text, first):
        final = _FINAL.search(text, max(0, found.start() - 20), found.start()) is not None
        marks.append((found.end(), found.end(), final))
    for found in _HASHES.finditer(text, first):
        group = 1 if found.group(1) else 2
        marks.append((found.end(group), found.start(group), True))
    marks += [(found.end(), found.start(1), True) for found in _TAG.finditer(text, first)]
    return sorted(marks)


def _rest(text: str, start: int) -> str:
    """The line after a mark, or the next that is not blank; a displayed formula whole."""
    rest = _STYLE.sub("", text[start : start + MAX_MARKED].partition("</answer>")[0]).lstrip(" \t*_`")
    if not rest.partition("\n")[0].strip():
        rest = rest.lstrip()
    if rest.startswith(("\\[", "$$")):
        return rest
    return rest.partition("\n")[0]


def _answer(rest: str, nesting: int = 0) -> str | None:
    rest = _HOPE.sub("", rest).replace('\\"', "").strip().strip(_FRAME)
    rest = _SUM.sub("", _FILLERS.sub("", rest), count=1)
    if not rest or _DENIED.match(rest):
        return None
    if rest.startswith(("\\boxed", "$\\boxed", "\\(\\boxed", "\\[\\boxed", "\\fbox")):
        return boxed(rest)
    if nesting < MAX_NESTED and (nested := _MARK.match(rest)) is not None:
        return _answer(rest[nested.end() :], nesting + 1)
    if formulas := _formulas(rest):
        return formulas
    if numbers := _NUMBERS.match(rest):
        return numbers[1]
    if compound := leading_compound(rest):
        return compound
    if (number := leading_number(rest)) is not None:
        return number
    if found := _LETTER.match(rest) or _VERDICT.match(rest):
        return found[1]
    if (box := boxed(rest)) is not None:
        return box
    sentence = (rest[: end.start()] if (end := _SENTENCE_END.search(rest)) is not None else rest).strip(_FRAME + ",")
    if len(_WORD.findall(sentence)) >= MIN_SENTENCE_WORDS and (expression := last_expression(sentence)) is not None:
        return expression
    return sentence or None


def _formulas(rest: str) -> str | None:
    """The formulas that a text begins with, joined where commas or "and" join them."""
    found = FORMULA.match(rest)
    if found is None:
        return None
    formulas = [inside(found)]
    per_cent = PER_CENT.match(rest, found.end())
    while (joint := _AND_FORMULA.match(rest, found.end())) and (following := FORMULA.match(rest, joint.end())):
        found = following
        formulas.append(inside(found))
    joined = ", ".join(filter(None, formulas))
    return (joined + "%" if per_cent and len(formulas) == 1 else joined) or None
