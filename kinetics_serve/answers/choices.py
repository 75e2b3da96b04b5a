"""Multiple choice: the letter that a text settles for."""

import re

from kinetics_serve.answers.boxes import boxed
from kinetics_serve.answers.notation import plain, unstyled

_OPENING = r"[\s*_`$\"'“‘«<]*+(?:\\(?:text|textbf|mathrm|boxed)\s*+\{\s*+)*+"
_OPTION_WORD = r"(?i:(?:the\s+)?(?:option|choice|letter|la|le|el|opción|letra|lettre)\s++)?+"
_LETTER = rf"{_OPENING}{_OPTION_WORD}(?:[(\[（]?+\s*+([A-Z])(?![A-Za-z0-9]|['’][A-Za-z])|[(\[（]\s*+([a-z])\s*+[)\]）])"
_MARK = re.compile(
    r"(?:(?i:answers?|antwort|réponse|respuesta|risposta|resposta|ответ|答案|正确答案|正解|答え|정답)(?:\s+(?i:correcte?a?))?"
    r"(?:\s*+(?:\b(?i:is|ist|est|es)\b|é|是|为|は|은|选))?+\s*+[-:：=→>]?+|[\"']answer[\"']\s*+:"
    r"|(?i:choice|option)\s*+(?:\bis\b\s*+[:：]?+|would be\b|[:：=]))"
    rf"\s*+(?:{_LETTER}|([a-z])(?=\s*+[.)]?\s*+$|\)\s))"
)
_ENDS = (
    r"[\s*)\]）}$]*+(?:[.,;:!，。、；．]|$|(?:as|because|since|over|rather)\b|"
    r"(?:is|must be)\s(?:the\s)?(?:correct|right|best|answer))"
)
_CONCLUSION = re.compile(
    r"(?:(?i:\b(?:so|thus|hence|therefore|conclude|pick|choose|select|go with|correction|it['’]s|it is|it must be|"
    rf"that['’]s|that is|left with))\b[,:]?|[选選])\s*+{_LETTER}(?={_ENDS})"
    r"|(?<![A-Za-z0-9'])([A-Z])[)\]*]*+\s+(?:is|must be|has to be)\s+(?:clearly\s+|therefore\s+)?(?:the\s+)?"
    r"(?:only\s+|best\s+)?(?:correct|right|answer)\b(?!\s+(?:only|if|when|that|for)\b)"
)
_BRACKETED = re.compile(
    r"(?<![A-Za-z0-9])[(\[（]\s*([A-Z])\s*[)\]）]|\*\*\s*([A-Z])[.:)]?\s*\*\*|\b(?i:option|choice)\s++\*{0,2}(?:([A-Z])(?![A-Za-z0-9'])|([a-z])\W*$)"
)
_ALONE = re.compile(r"(?<![A-Za-z0-9'])(?<!\d\s)([A-Z])(?![A-Za-z0-9']|\s*=)")
"""A letter after a number is its unit, and one that equals something is a variable."""

_LEAD = re.compile(
    r"[\s*_`#>\"'“$✅➡️]*+(?:[(\[（]?\s*([A-Z])[*_`)\]）$\"'”]*+"
    r"(?:\s*+$|[ \t]*+\n|\.\**\s+(?![a-z])|\.$|\s?[:：)](?=[\s*])|(?<=[)\]）])\.|(?<=[)\]）*])\s+(?=[^\sa-z])"
    r"| [-–—] |,\s(?:since|because|as|not)\b)"
    r"|\(?([a-z])(?:[.)]?\s*+$|\)\s))"
)
"""A letter alone on the first line, or before a stop, colon or bracket. "E. coli" begins with none."""

_LISTED = re.compile(r"(?<![A-Za-z0-9])A[).:][\s\S]{1,2000}?(?<![A-Za-z0-9])B[).:]")
"""A text that goes through the options begins with A, whatever it settles for."""
_TAKEN_BACK = re.compile(r"(?i)\b(?:wait|actually|correction|scratch that)\b")
_RULED_OUT_AFTER = re.compile(
    r"(?i)(?!\s*[,(]?\s*(?:and |but )?not\b)[)\]]?[^.;\n]{0,12}?\b(?:is|are|was|can|could|does|do|seems)?\s*"
    r"(?:n't|\bnot\b|\bwrong\b|\bincorrect\b|\bfalse\b|\bruled out\b|\beliminated\b|\bout\b|\bfails?\b)"
)
_RULED_OUT_BEFORE = re.compile(
    r"(?i)\b(?:not|isn't|rule out|eliminate|neither|nor|than|except|over|instead of|(?:can't|cannot) be)"
    r"\s+(?:option\s+)?[(\[*]*$|\b(?:from|between)\s+(?:[A-J]\s+(?:to|and)\s+)?$"
)
_VERB = re.compile(r"\s+(?:is|was|and|or|fits|best|seems)\b")
_IN_A_SENTENCE = re.compile(r"[a-z,]\s$")
"""Before a capital A that is no article."""
_ARTICLE = re.compile(r"\s+[a-z]")

SEARCHED_CHARACTERS = 8192
"""How much of a text's end is searched."""

DEFAULT_LETTERS = "ABCDEFGHIJ"


def choice(text: str) -> str | None:
    """The letter A to J that the text settles for: boxed, else after "answer" and its like, else what the text begins
    with, else what it concludes, else the last one that is not ruled out.
    """
    box = boxed(text)
    letter = letter_of(box, DEFAULT_LETTERS) if box is not None else None
    return letter or marked_letter(text, DEFAULT_LETTERS) or mentioned_letter(text, DEFAULT_LETTERS)


def letter_of(answer: str, letters: str) -> str | None:
    """The letter that an answer is, begins with, or alone holds."""
    bare = unstyled(plain(answer.translate(_NARROW)))
    if (letter := _leading(bare, letters)) is not None:
        return letter
    alone = _ALONE.findall(bare)
    return str(alone[0]) if len(alone) == 1 and alone[0] in letters else None


def marked_letter(text: str, letters: str) -> str | None:
    """The letter after the last "answer" or its like; one that is concluded after those were taken back."""
    text = text[-SEARCHED_CHARACTERS:].translate(_NARROW)
    if taken_back := list(_TAKEN_BACK.finditer(text)):
        since = text[taken_back[-1].start() :]
        if letter := _last(_MARK, since, letters) or _last(_CONCLUSION, since, letters):
            return letter
    return _last(_MARK, text, letters)


def mentioned_letter(text: str, letters: str) -> str | None:
    """The letter that a text without a mark begins with, else concludes, else brackets, else mentions last."""
    text = text[-SEARCHED_CHARACTERS:].translate(_NARROW)
    leading = _leading(text, letters) if not _LISTED.match(text.lstrip(" \t\n*(")) else None
    concluded = leading or _last(_CONCLUSION, text, letters)
    return concluded or _last(_BRACKETED, text, letters) or _last(_ALONE, text, letters)


def bracketed_letter(text: str, letters: str) -> str | None:
    """The last letter in brackets, in bold or after "option" that is not ruled out."""
    return _last(_BRACKETED, text[-SEARCHED_CHARACTERS:].translate(_NARROW), letters)


def _leading(text: str, letters: str) -> str | None:
    found = _LEAD.match(text)
    letter = (found[1] or found[2]).upper() if found is not None else ""
    return letter if letter and letter in letters else None


def _last(pattern: re.Pattern[str], text: str, letters: str) -> str | None:
    """The last letter that a pattern finds, without those that are words or ruled out."""
    for found in reversed(list(pattern.finditer(text))):
        group = found.lastindex or 0
        letter = found[group].upper()
        start, end = found.span(group)
        if letter in letters and not _is_word(text, start, end) and not is_ruled_out(text, start, end):
            return letter
    return None


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether a letter is the pronoun I, or the article A."""
    letter = text[start:end]
    if letter == "I":
        return bool(_ARTICLE.match(text, end))
    if letter != "A" or not _ARTICLE.match(text, end) or _VERB.match(text, end):
        return False
    return not _IN_A_SENTENCE.search(text, max(0, start - 20), start)


def is_ruled_out(text: str, start: int, end: int) -> bool:
    """Whether a text says that what stands there is not the answer."""
    before = text[max(0, start - 30) : start]
    return bool(_RULED_OUT_AFTER.match(text, end) or _RULED_OUT_BEFORE.search(before))


_NARROW = {0xFF21 + index: chr(ord("A") + index) for index in range(26)}
