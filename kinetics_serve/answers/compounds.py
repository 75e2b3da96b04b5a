"""Answers whose number alone is another answer: durations, dates, times of day, scales, odds."""

import re

_NUMBER = r"\\?[$€£¥₹]?\d{1,15}(?:[.,]\d{1,9}){0,4}"
_MONTH = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
_MONTH += r"|Nov(?:ember)?|Dec(?:ember)?)\b"
_PART = (
    r"(?i:hours?|hrs?|h|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|yards?|miles?|"
    r"dollars?|cents?|euros?|pounds?|lbs?|ounces?|oz|pence|degrees?|km|m|cm|kg|g)\b"
)
_JOINT = r"(?:,? and|,)? "
_QUANTITIES = rf"{_NUMBER} ?{_PART}(?:{_JOINT}{_NUMBER} ?{_PART})+"
_DATE = (
    rf"\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? \d{{4}}\b)?|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?(?:,? \d{{4}})?\b"
)
_TIME = r"\d{1,2}(?:[:.]\d\d){0,2} ?(?:[ap]\.m\.|[AP]\.M\.|[ap]m\b|[AP]M\b)"
_SCALED = rf"{_NUMBER} (?i:(?:hundred|thousand|million|billion|trillion|dozen|squared|cubed|factorial)s?|BCE?|CE|AD)\b"
_ODDS = rf"{_NUMBER} (?:out of|in every) {_NUMBER}|1 in {_NUMBER}"
_DIVISION = r"\d{1,15},? (?:R|(?:with )?(?:an? )?remainder(?: of)?) ?\d{1,15}\b"
_RELATED = rf"{_NUMBER} (?:to|in|over|times|plus|minus|by) {_NUMBER}|{_NUMBER} [^\W\d_]+ and {_NUMBER}(?: [^\W\d_]+)?"
_FACTORIAL = r"\d+!(?=\.| [a-z])"

COMPOUND = "|".join([_QUANTITIES, _DATE, _TIME, _SCALED, _ODDS, _DIVISION])
"""What is one answer wherever it stands in a text."""

_LEADING = re.compile("|".join([COMPOUND, _RELATED, _FACTORIAL]))


def leading_compound(text: str) -> str | None:
    """The compound that a text begins with."""
    found = _LEADING.match(text)
    return found[0].lstrip("\\$") if found is not None else None
