"""Commas inside of numbers: between thousands, and before decimals. Every other comma separates."""

import re

from kinetics_serve.answers.brackets import depths

_SIGN = r"[€£¥₹]"
_NAME = r"\s*(?:\\(?:text|mathrm|mbox)\s*\{\s*)?(?:[€£¥₹]|[Ee]uros?|EUR)\s*\}?"
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_DECIMAL = re.compile(
    rf"[-+]?\s*{_SIGN}?\s*(?:0|\d{{4,}}),\d+\s*(?:{_SIGN}|%)?|[-+]?\s*\d+,\d+\s*%"
    rf"|[-+]?\s*{_SIGN}\s*[-+]?\d+,\d{{1,2}}|[-+]?\s*\d+,\d{{1,2}}{_NAME}"
)


def with_points(text: str) -> str:
    """The text with a point for its decimal comma, if it is one number with a comma that can be nothing else."""
    return text.replace(",", ".") if _DECIMAL.fullmatch(text) else text


def without_thousands(text: str) -> str:
    """The text without the commas between the thousands of numbers outside of brackets."""
    depth = depths(text)
    return _THOUSANDS.sub(lambda found: found[0] if depth[found.start()] else found[0].replace(",", ""), text)
