"""Texts with brackets: where they open and close, and the parts between separators outside of them."""

import re

_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]|\\begin\{|\\end\{|\\[lr]angle|\\.")
_OPENING = frozenset({r"\{", "(", "[", "{", r"\langle"})
_CLOSING = frozenset({r"\}", ")", "]", "}", r"\rangle"})


def depths(text: str) -> list[int]:
    """For every position, how many brackets are open there. Which kind closes which does not matter: [0, 1) is an
    interval.
    """
    depth = 0
    result = [0] * (len(text) + 1)
    last = 0
    for bracket in _BRACKET.finditer(text):
        kind = bracket[0]
        if kind in (r"\begin{", r"\end{"):
            change = 1 if kind == r"\begin{" else -1
            change += 1  # its own brace, which closes later
        elif kind in _OPENING:
            change = 1
        elif kind in _CLOSING:
            change = -1
        else:
            continue
        result[last : bracket.start() + 1] = [depth] * (bracket.start() + 1 - last)
        last = bracket.start() + 1
        depth += change
    result[last:] = [depth] * (len(text) + 1 - last)
    return result


def split(text: str, separator: str) -> list[str]:
    """The parts between separators that stand outside of all brackets."""
    return split_at(text, re.compile(re.escape(separator)))


def split_at(text: str, separator: re.Pattern[str]) -> list[str]:
    """As `split`, for separators that an expression describes."""
    depth = depths(text)
    parts, start = [], 0
    for found in separator.finditer(text):
        if depth[found.start()] == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [part.strip() for part in [*parts, text[start:]]]
