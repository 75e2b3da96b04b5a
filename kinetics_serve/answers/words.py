"""Words that say a number, a set, or that there is none, in figures and signs."""

import re
from collections.abc import Sequence
from fractions import Fraction

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_BELOW_100 = {word: value for value, word in enumerate(_ONES.split())}
_BELOW_100 |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10}
_PARTS |= {f"{word}s": value for word, value in _PARTS.items()}
_SIGNS = ("minus", "negative")

_PHRASES = {
    "infinity": r"\infty",
    "positive infinity": r"\infty",
    "negative infinity": r"-\infty",
    "minus infinity": r"-\infty",
    "no solution": r"\emptyset",
    "no solutions": r"\emptyset",
    "empty set": r"\emptyset",
    "the empty set": r"\emptyset",
    "all real numbers": r"\mathbb{R}",
    "all reals": r"\mathbb{R}",
    "dne": "does not exist",
}

_ORDINAL_WORDS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_ORDINALS = {
    word: f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place, 'th') }"
    for place, word in enumerate(_ORDINAL_WORDS.split(), 1)
}
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)", re.I)
_DIVISION = re.compile(r"(\d{1,30})(?:,? (?:R|r|rem\.?|(?:with )?(?:an? )?remainder(?: of)?)|R) ?(\d{1,30})")

MOST_WORDS = 10
"""Of a number and what it counts."""

_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{([^{}]*)\}")
_SCALED = re.compile(
    r"(?<![\w.])(\d{1,15}(?:,\d{3})*(?:\.\d{1,15})?)\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*)?"
    r"(hundred|thousand|million|billion|trillion)(?:s(?![a-z]))?(?![a-z])(\s*\})?",
    re.I,
)
_ODDS = re.compile(r"(\d+) (?:out of|in every|in) (\d+)")
_ABOUT = re.compile(
    r"\A(?:approximately|approx\.?|about|around|roughly|nearly|almost|circa) (?=[-+€£¥₹]?\s?[\d.(\\])", re.I
)


def in_figures(text: str) -> str:
    """The text, in figures where all of it is a number in words, with a noun or a unit after it or none: "three and a
    half hours", "$1.5 million", "3 out of 5"; in signs where it says "infinity" and the like. What the number is only
    about is the number.
    """
    styled = _TEXT.fullmatch(text)
    bare = (styled[1] if styled is not None else text).strip(" .")
    if (phrase := _PHRASES.get(bare.casefold())) is not None:
        return phrase
    if (odds := _ODDS.fullmatch(bare)) is not None:
        return f"{odds[1]}/{odds[2]}"
    if (spelled := _spelled(bare)) is not None:
        return spelled
    return _SCALED.sub(_scaled, _ABOUT.sub("", text))


def order_or_division(text: str) -> str | None:
    """An ordinal, or a quotient with its remainder, in one form: `1st`, `7 R 2`; None for what is neither. Neither is
    mathematics, for all the figures in it.
    """
    if text.casefold() in _ORDINALS or _ORDINAL.fullmatch(text):
        return _ORDINALS.get(text.casefold(), text.casefold())
    division = _DIVISION.fullmatch(text)
    return f"{int(division[1])} R {int(division[2])}" if division is not None else None


def _scaled(found: re.Match[str]) -> str:
    scale = _SCALES.get(found[2].lower(), 100)
    value = Fraction(found[1].replace(",", "")) * scale
    opened, closed = r"\t" in found[0] or r"\m" in found[0], found[3] is not None
    if value.denominator != 1 or opened != closed:
        return found[0]
    return str(value)


def _spelled(text: str) -> str | None:
    written = text.replace("-", " ").split()
    words = [word.lower() for word in written]
    if not words or len(words) > MOST_WORDS or not words[0].isalpha():
        return None
    sign = "-" if words[0] in _SIGNS else ""
    at = len(sign)
    value, read = _number(words[at:])
    noun = written[at + read :]
    if value is None or len(noun) > 1 or not all(word.isalpha() and word.islower() for word in noun):
        return None
    if any(word in _BELOW_100 or word in _SCALES or word == "hundred" for word in noun):
        return None
    return " ".join([f"{sign}{value}", *noun])


def _number(words: Sequence[str]) -> tuple[Fraction | None, int]:
    """The number that words begin with, and how many of them say it."""
    whole, read = _cardinal(words)
    rest = words[read:]
    if read == 0 and rest[:1] == ["half"]:
        return Fraction(1, 2), 1
    if read == 0 and rest[:1] in (["a"], ["an"]) and len(rest) > 1 and rest[1] in _PARTS:
        return Fraction(1, _PARTS[rest[1]]), 2
    if read == 0:
        return None, 0
    if rest and rest[0] in _PARTS:
        return Fraction(whole, _PARTS[rest[0]]), read + 1
    if rest[:1] == ["and"]:
        count, counted = (1, 1) if rest[1:2] in (["a"], ["an"]) else _cardinal(rest[1:])
        if counted and rest[1 + counted : 2 + counted] and rest[1 + counted] in _PARTS:
            return whole + Fraction(count, _PARTS[rest[1 + counted]]), read + counted + 2
    return Fraction(whole), read


def _cardinal(words: Sequence[str]) -> tuple[int, int]:
    """The whole number that words begin with, and how many of them say it: 0 where they say none."""
    total, group, read = 0, 0, 0
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word in _BELOW_100:
            below, tens = _BELOW_100[word], group % 100
            if (tens and (tens < 20 or tens % 10 or not 0 < below < 10)) or (read and 0 in (below, total + group)):
                break
            group += below
        elif word == "hundred" and 0 < group < 10:
            group *= 100
        elif word in _SCALES and group and (not total or _SCALES[word] * group < total):
            total, group = total + group * _SCALES[word], 0
        elif word == "a" and not read and (following == "hundred" or following in _SCALES):
            group = 1
        elif word == "and" and read and following in _BELOW_100 and (words[place - 1] == "hundred" or not group):
            continue
        else:
            break
        read = place + 1
    return total + group, read
