"""The options of a multiple-choice question, and which of them a text settles for."""

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

from kinetics_serve.answers.boxes import last_boxes
from kinetics_serve.answers.choices import (
    SEARCHED_CHARACTERS,
    bracketed_letter,
    is_ruled_out,
    letter_of,
    marked_letter,
    mentioned_letter,
)
from kinetics_serve.answers.equivalence import MAX_MATH_LENGTH, normalised, simple_number
from kinetics_serve.answers.expressions import last_expression
from kinetics_serve.answers.marks import last_mark
from kinetics_serve.answers.notation import plain, unstyled
from kinetics_serve.answers.numerals import leading_number

_OPTION = re.compile(r"(?m)(?:^[ \t]*+[(\[（]?([A-Z])[)\].:：、）]\s*+|(?<=\s)[(\[（]?([A-Z])[)\].:：、）]\s++)(?=\S)")
"""Where an option begins. What it says ends with its line, or where the next one begins."""
_SMALL_OPTION = re.compile(r"(?m)^[ \t]*+(?:\(?([a-z])\))[ \t]++(?=\S)")
_STYLED_LETTER = re.compile(r"\\(?:text\w*|math\w+)\s*\{\s*\(?([A-Z])\)?[.:)]?\s*\}")
_TEX_SPACE = re.compile(r"\\(?:q?quad(?![a-zA-Z])|[ ,;])|[~$]")
_FRACTION = re.compile(r"\\frac\{(\d+)\}\{(\d+)\}")
_DIGIT = re.compile(r"\d")

MIN_SMALL_OPTIONS = 3
"""Two small letters are rather the parts of a question."""

MAX_NAMED = 1000
"""Characters of a text's end in which what the options say is looked for."""


class Option(NamedTuple):
    letter: str
    text: str


def options_of(question: str) -> tuple[Option, ...]:
    r"""The options that a question lists, A, B and so on, in words or as TeX (`\textbf{(A)}\ 12`), or a), b), c); none
    where it lists fewer than two.
    """
    question = question[-SEARCHED_CHARACTERS:]
    if _STYLED_LETTER.search(question):
        question = _TEX_SPACE.sub(" ", _STYLED_LETTER.sub(r"(\1) ", question))
    options = _listed(question, _OPTION)
    if len(options) > 1:
        return options
    options = _listed(question, _SMALL_OPTION)
    parts = any(option.text.endswith((".", "?")) for option in options)
    return options if len(options) >= MIN_SMALL_OPTIONS and not parts else ()


def choice_of(options: tuple[Option, ...]) -> Callable[[str], str | None]:
    """The option of a question that a text settles for, by its letter or by what it says. None where the text boxes
    or marks something else: then the list is no list of answers.
    """
    letters = "".join(option.letter for option in options)

    def extract(text: str) -> str | None:
        box = last_boxes(text)
        if box is not None:
            return letter_of(box[0], letters) or _saying(box[0], options) or marked_letter(text[box[1] :], letters)
        if letter := _saying(text, options) or marked_letter(text, letters):
            return letter
        mark = last_mark(text)
        if mark is not None and ((letter := _saying(mark[0], options)) or _DIGIT.search(mark[0])):
            return letter or bracketed_letter(text[mark[1] :], letters)
        letter = _led(text, options) or mentioned_letter(text, letters) or _named(text, options)
        return letter or _saying(last_expression(text) or "", options)

    return extract


def _listed(question: str, pattern: re.Pattern[str]) -> tuple[Option, ...]:
    options: list[Option] = []
    starts = list(pattern.finditer(question))
    for found, following in zip_longest(starts, starts[1:]):
        letter = next(filter(None, found.groups())).upper()
        text = question[found.end() : following.start() if following is not None else None].partition("\n")[0].strip()
        if letter == chr(ord("A") + len(options)):
            options.append(Option(letter, text))
        elif letter == "A":
            options = [Option("A", text)]
    return tuple(options)


def _saying(answer: str, options: tuple[Option, ...]) -> str | None:
    """The letter of the only option that says what an answer says, or whose number it is."""
    said = normalised(answer)
    same = [option.letter for option in options if normalised(option.text) == said]
    if not same and (value := _value(answer)) is not None:
        same = [option.letter for option in options if _value(option.text) == value]
        same = same or [option.letter for option in options if _value(leading_number(option.text) or "") == value]
    return same[0] if len(same) == 1 else None


def _value(text: str) -> Fraction | None:
    if len(text) > MAX_MATH_LENGTH:
        return None
    return simple_number(_FRACTION.sub(r"\1/\2", unstyled(plain(text)).strip(" .,")))


def _led(text: str, options: tuple[Option, ...]) -> str | None:
    """The option that a text begins with the words of, as "Yes" of "Yes, it is"."""
    said = normalised(text[:MAX_NAMED])
    leading = [option for option in options if _begins(said, normalised(option.text))]
    return max(leading, key=lambda option: len(option.text)).letter if leading else None


def _begins(said: str, words: str) -> bool:
    after = said.removeprefix(words)
    return words[:1].isalpha() and len(words) > 1 and after != said and after.startswith((".", ",", ";", ":", "!"))


def _named(text: str, options: tuple[Option, ...]) -> str | None:
    """The option whose words are mentioned and not ruled out, where only that one is, or where it holds those of the
    others.
    """
    said = normalised(text[-MAX_NAMED:])
    texts = {option.letter: normalised(option.text) for option in options}
    mentioned = {letter: words for letter, words in texts.items() if words and _mentions(said, words)}
    whole = [
        letter for letter, each in mentioned.items() if not any(each in of for of in mentioned.values() if of != each)
    ]
    return whole[0] if len(whole) == 1 else None


def _mentions(said: str, words: str) -> bool:
    found = re.finditer(rf"(?<!\w){re.escape(words)}(?!\w)", said)
    return any(not is_ruled_out(said, *each.span()) for each in found)
