"""Numbers in a text: decimals, fractions, with thousands separators and a currency, as people and TeX write them."""

import re

import re2

_POINTED = r"\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d{1,2})"
_DIGITS = _POINTED + r"|"
_DIGITS += r"\d{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!|[\x{a0}\x{2009}\x{202f}'])\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?:\.\d+)?"
_PLAIN = r"\d{4,},\d+|0,\d+|\d+,\d{1,2}(?: ?[€£]| \$)|\d*\.\d+|\d+(?:\.\d+)?"
_VULGAR = r"\d* ?[¼-¾⅐-⅞]"
_MIXED = r"\d{1,3} \d{1,2}[/⁄]\d{1,2}"
_FRACTION = r"(?:\d+ ?)?\\[dtc]?frac *(?:\{[^{}]{1,40}\}|\d) *(?:\{[^{}]{1,40}\}|\d)"
_POWER_OF_TEN = r" ?(?:×|\\times|\\cdot|\*|x) ?10(?:\^\{?-?\d{1,3}\}?|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)"
_PER_CENT = r"(?: ?\\?%| (?:percent|per cent|pct)\b)"
_BODY = (
    rf"(?:{_FRACTION}|{_VULGAR}|{_MIXED}|(?:{_DIGITS}|{_PLAIN})(?:[eE][-+]?\d{{1,3}}|{_POWER_OF_TEN})?"
    r"(?: ?[/⁄] ?\d+(?:\.\d+)?)?"
    rf"(?:{_PER_CENT})?)"
)
_CURRENCY = r"\\?[$€£¥₹]"

NUMBER = re2.compile(rf"([-+−–]?)([ ]*)(?:{_CURRENCY})?(-?)({_BODY})")
LEADING = re2.compile(rf"(?:≈|~|about |approximately )?([-+−–]?)([ ]*)(?:{_CURRENCY})?(-?)({_BODY})(.?.?)")

_WITH_POINTS = re.compile(_POINTED + r"(?![\d.,]*\d)")
_HYPHENATED = re.compile(r"[A-Za-z]{2}-$|\d ?[A-Za-zµ·]+(?:/[A-Za-z]+)?\^\{?[-−]?$")
_COUNTED = re.compile(
    r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]"
    r"(?<![十百千万萬億亿兆年月日号號時时点點分秒십백천만억년월일시분초])"
)
"""A noun or particle that Chinese, Japanese and Korean write without a space. Scales, dates and times are none."""
_BREAKS = re.compile(r"\\[,!]|\{,\}|[\u00a0\u2009\u202f']")
_SPACED = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")
_COMMAS = re.compile(r",(?=\d{3}(?!\d))")
_TIMES = re.compile(r"(?<=\d) ?x ?(?=10\D)")
_DECIMAL_COMMA = re.compile(r"^(0|\d{4,}|\d+(?=,\d\d? ?[€£$])),")


_ASCII = {first + digit: str(digit) for first in (0xFF10, 0x0660, 0x06F0, 0x0966, 0x09E6) for digit in range(10)}
_ASCII |= {ord("٪"): "%", ord("٫"): ".", ord("٬"): ","}


def with_ascii_digits(text: str) -> str:
    """A text with its fullwidth, Arabic, Persian, Hindi and Bengali digits as ASCII."""
    return text if text.isascii() else text.translate(_ASCII)


def last_number(text: str) -> tuple[str, int, int] | None:
    """The last number of a text as `plain_number` writes it, and where it stands."""
    for found in reversed(list(NUMBER.finditer(text))):
        before = text[: found.start()].rstrip(" ")
        if found.start(4) and _is_part_of_a_word(text, found):
            continue
        return _signed(found, before), found.start(), found.end()
    return None


def leading_number(text: str) -> str | None:
    """The number that a text begins with, if it ends where the number, its noun or the sentence ends."""
    found = LEADING.match(text)
    if found is None:
        return None
    after = text[found.end(4) :]
    if _COUNTED.match(after):
        return _signed(found, "")
    if after[:1] in ("", ".", ",", ";", "!", "?", ")", "]", "*", "$", "\n", "。", "，", "、", "€", "£") and not (
        after[1:2].isdigit() and after[:1] in ".,;"
    ):
        return _signed(found, "")
    if (
        after[:1].isspace()
        and re.match(r"\s+(?:[^\W\d_]|\(|$)", after)
        and not re.match(r"\s*(?:am|pm|[AP]M)\b", after)
    ):
        return _signed(found, "")
    return None


def plain_number(number: str) -> str:
    """A number as written, but without its currency and thousands separators, and with a decimal point."""
    number = _TIMES.sub(" × ", _SPACED.sub("", _BREAKS.sub("", number))).replace("−", "-").replace("–", "-")
    if pointed := _WITH_POINTS.match(number):
        return pointed[0].replace(".", "").replace(",", ".") + number[pointed.end() :]
    if _DECIMAL_COMMA.match(number):
        return number.replace(",", ".").rstrip(" €£$")
    return _COMMAS.sub("", number)


def _signed(found: re.Match[str], before: str) -> str:
    """With its sign, where that is one: not a minus between two values, nor a dash or a list's bullet."""
    sign, gap, inner, body = found.group(1), found.group(2), found.group(3), found.group(4)
    minus = inner == "-" or sign in ("-", "−", "–")
    if minus and not inner:
        last_word = re.search(r"([\w})\]]+)$", before)
        if (last_word is not None and _ends_a_value(last_word[1])) or (gap and last_word is None and not before):
            minus = False
        if gap and (not before or before.endswith("\n")):
            minus = False
    return ("-" if minus else "") + plain_number(body)


def _ends_a_value(word: str) -> bool:
    return word[-1] in ")}]" or word[-1].isdigit() or len(word) == 1


def _is_part_of_a_word(text: str, found: re.Match[str]) -> bool:
    """Such as the 2 of AZYUK2A or x_2, of GPT-2, and of the unit cm^2."""
    start = found.start(4)
    if _HYPHENATED.search(text[max(0, start - 20) : start]):
        return True
    return start > 0 and (text[start - 1].isalpha() or text[start - 1] == "_") and not found.group(1)
