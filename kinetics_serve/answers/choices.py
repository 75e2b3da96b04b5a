"""Multiple choice: the letter that a text settles for, and the options of a question."""

import re
from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

from kinetics_serve.answers.boxes import boxed
from kinetics_serve.answers.equivalence import normalised

_MARK = re.compile(
    r"(?i:answers?|choice|option|antwort|réponse|respuesta|risposta|resposta|ответ|答案|正确答案|答え|정답)"
    r"(?:\s*+(?:\bis\b|\bist\b|\best\b|\bes\b|是|为|は|은))?+\s*+[:：=]?+\s*+[*_`$]*+\s*+(?:\\(?:text|textbf|mathrm|boxed)\s*+\{)*+"
    r"\s*+(?:[(\[（]?+\s*+([A-Z])(?![A-Za-z0-9'])|[(\[（]\s*+([a-z])\s*+[)\]）]|([a-z])(?=\s*+[.)]?\s*+$))"
)
_BRACKETED = re.compile(r"[(\[（]\s*([A-Z])\s*[)\]）]|\*\*\s*([A-Z])[.:)]?\s*\*\*")
_ALONE = re.compile(r"(?<![A-Za-z0-9'])([A-Z])(?![A-Za-z0-9'])")
_RULED_OUT_AFTER = re.compile(
    r"(?i)[)\]]?[^.;\n]{0,12}?\b(?:is|are|was|can|could|does|do|seems)?\s*"
    r"(?:n't|\bnot\b|\bwrong\b|\bincorrect\b|\bfalse\b|\bruled out\b|\beliminated\b|\bout\b)"
)
_RULED_OUT_BEFORE = re.compile(
    r"(?i)\b(?:not|isn't|rule out|eliminate|neither|nor|than|except)\s+(?:option\s+)?[(\[]?$"
)
_VERB = re.compile(r"\s+(?:is|was|and|or|fits|best|seems)\b")
_IN_A_SENTENCE = re.compile(r"[a-z,]\s$")
"""Before a capital A that is no article."""
_ARTICLE = re.compile(r"\s+[a-z]")
_OPTION = re.compile(r"(?m)(?:^[ \t]*+[(\[（]?([A-Z])[)\].:：、）]\s*+|(?<=\s)[(\[（]?([A-Z])[)\].:：、）]\s++)(?=\S)")
"""Where an option begins. What it says ends with its line, or where the next one begins."""

SEARCHED_CHARACTERS = 8192
"""How much of a text's end is searched, and of a question's."""

DEFAULT_LETTERS = "ABCDEFGHIJ"


class Option(NamedTuple):
    letter: str
    text: str


def choice(text: str) -> str | None:
    """The letter A to J that the text settles for: boxed, else after "answer" and its like, else the last one that is
    not ruled out.
    """
    return _settled(text, DEFAULT_LETTERS)


def options_of(question: str) -> tuple[Option, ...]:
    """The options that a question lists, A, B and so on; none where it lists fewer than two."""
    question = question[-SEARCHED_CHARACTERS:]
    options: list[Option] = []
    starts = list(_OPTION.finditer(question))
    for found, following in zip_longest(starts, starts[1:]):
        letter = found[1] or found[2]
        text = question[found.end() : following.start() if following is not None else None].partition("\n")[0].strip()
        if letter == chr(ord("A") + len(options)):
            options.append(Option(letter, text))
        elif letter == "A":
            options = [Option("A", text)]
    return tuple(options) if len(options) > 1 else ()


def choice_of(options: tuple[Option, ...]) -> Callable[[str], str | None]:
    """As `choice`, among the options of a question: by their letters, or by what they say."""
    letters = "".join(option.letter for option in options)
    texts = {normalised(option.text): option.letter for option in options}

    def extract(text: str) -> str | None:
        box = boxed(text)
        for said in filter(None, (box, text.strip())):
            if (letter := texts.get(normalised(said))) is not None:
                return letter
        return _settled(text, letters) or _named(text, options)

    return extract


def _named(text: str, options: tuple[Option, ...]) -> str | None:
    """The option whose text is mentioned, where only that one is, or where it holds those of the others."""
    said = normalised(text[-1000:])
    texts = {option.letter: normalised(option.text) for option in options}
    mentioned = {letter: each for letter, each in texts.items() if each and each in said}
    whole = [
        letter for letter, each in mentioned.items() if not any(each in of for of in mentioned.values() if of != each)
    ]
    return whole[0] if len(whole) == 1 else None


def _settled(text: str, letters: str) -> str | None:
    text = text[-SEARCHED_CHARACTERS:].translate(_NARROW)
    box = boxed(text)
    if box is not None and (alone := _ALONE.findall(box)) and alone[0] in letters and len(alone) == 1:
        return str(alone[0])
    for found in reversed(list(_MARK.finditer(text))):
        letter = found[1] or (found[2] or found[3]).upper()
        if letter in letters and not (found[1] and _is_word(text, found, letter)):
            return str(letter)
    for found in reversed(list(_BRACKETED.finditer(text))):
        letter = found[1] or found[2]
        if letter in letters and not _ruled_out(text, found):
            return str(letter)
    for found in reversed(list(_ALONE.finditer(text))):
        if found[1] in letters and not _is_word(text, found, found[1]) and not _ruled_out(text, found):
            return str(found[1])
    return None


def _is_word(text: str, found: re.Match[str], letter: str) -> bool:
    """Whether a letter is the pronoun I, or the article A."""
    end = found.end()
    if letter == "I":
        return bool(_ARTICLE.match(text, end))
    if letter != "A" or not _ARTICLE.match(text, end) or _VERB.match(text, end):
        return False
    return not _IN_A_SENTENCE.search(text, max(0, found.start(1) - 20), found.start(1))


def _ruled_out(text: str, found: re.Match[str]) -> bool:
    before = text[max(0, found.start() - 30) : found.start()]
    return bool(_RULED_OUT_AFTER.match(text, found.end()) or _RULED_OUT_BEFORE.search(before))


_NARROW = {0xFF21 + index: chr(ord("A") + index) for index in range(26)}
