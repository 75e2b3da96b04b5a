r"""What stands in boxes, `\boxed{…}` and `\fbox{…}`: where a model was taught to put its answer."""

import re
from itertools import pairwise
from typing import NamedTuple

_BOX = re.compile(r"\\f?boxed|\\fbox")
_BRACE = re.compile(r"\\[{}]|[{}]")
_UNBRACED = re.compile(r"\s+([^\s{}$\\]+)|\s*(\d)")
_JOINED = re.compile(r"[,;&]|\\quad|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])")
_STARTS_ANEW = re.compile(
    r"(?i)[.!?][\s$)]|\n\s*\n|(?<![a-z])(?:no|not|wait|actually|instead|rather|exactly|hence|thus|therefore|then|so|"
    r"but|wrong|false|incorrect|mistake\w*|check|correct(?:ed|ion)?|simplif\w+|which|i\.e|equals|that is)(?![a-z])"
    r"|(?<![<>!])=\s*\\?[\[$(]*\s*$"
)
_PER_CENT = re.compile(r"[ $]*(?:\\[)\]])?\s*(?:\\?%|percent|per cent|pct)")
_MINUS = re.compile(r"(?:^|[$=(:&]|\\[(\[]|\n)\s*[-−]\s*$|[A-Za-z]{2} [-−]$")
_BULLET = re.compile(r"(?:^|\n)\s*[-−]\s+$")
_FACTOR = re.compile(
    r"\s*(?:\^\{?\s*\\circ\s*\}?|°|\\sqrt\s*(?:\{[^{}]{1,40}\}|\d)|\\pi(?![a-zA-Z])|(?<=\})i(?![a-zA-Z]))"
)
_OPERATOR = re.compile(r"\s*(?:[-−+/:]|\\(?:times|cdot|div)(?![a-zA-Z]))\s*")
_FRACTION, _OVER = re.compile(r"\\[dt]?frac\s*\{\s*$"), re.compile(r"\s*\}\s*\{\s*")
_EQUALS = re.compile(r"[ $]*=")
"""What makes boxes parts of a formula."""
_MARKED = re.compile(
    r"(?i)(?:the\s+)?(?:final\s+)?answer(?:\s+is|\s*[:=])\s*(?!\s*$)|\\text\{\s*(?:the\s+)?answer(?:\s+is|:)\s*\}\s*"
)
_PLACEHOLDER = re.compile(r"(?i)(?:\\text\{)?(?:(?:your|the|final)\s+)*answer(?:\s+here)?\}?|\.\.\.|…|\\[lc]?dots")
"""What a prompt boxes to say where the answer goes."""
_DELIMITER = re.compile(r"(?:\\[(\[]|\$|\s)+$")
_NAMED = re.compile(r"([a-zA-Z](?:_\{?\w+\}?)?(?:\([a-z]\))?)\s*=\s*$")

MAX_NEAR = 10
MAX_BETWEEN = 70
"""Characters between boxes that are one answer: whatever they say, and where a word or comma joins them.

As in math-verify.
"""

MAX_SEARCHED = 16_384
"""Characters of a text's end in which boxes are looked for."""


class Box(NamedTuple):
    content: str
    start: int
    end: int


def boxed(text: str) -> str | None:
    """The content of the last box, or of the last ones that are one answer together."""
    last = last_boxes(text)
    return last[0] if last is not None else None


def last_boxes(text: str) -> tuple[str, int] | None:
    """What `boxed` says, and where it ends."""
    offset = max(0, len(text) - MAX_SEARCHED)
    text = text[offset:]
    boxes = _boxes(text)
    if not boxes:
        return None
    group = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.end : group[0].start]
        name = _NAMED.search(between)
        if name is not None:
            between = between[: name.start()]
        near = len(between) < MAX_NEAR or (len(between) <= MAX_BETWEEN and _JOINED.search(between))
        if not near or _STARTS_ANEW.search(between):
            break
        group.insert(0, box)
    return _together(text, group), offset + group[-1].end


def _together(text: str, boxes: list[Box]) -> str:
    names = [_NAMED.search(text[max(0, box.start - 20) : box.start]) for box in boxes]
    contents = [box.content for box in boxes]
    if (formula := _formula(text, boxes)) is not None:
        return formula
    if len(boxes) == 1:
        return contents[0] + ("%" if _PER_CENT.match(text, boxes[0].end) else "")
    if all(names):
        return ", ".join([f"{name[1]} = {each}" for name, each in zip(names, contents, strict=True) if name])
    distinct = list(dict.fromkeys(contents))
    before, after = _DELIMITER.sub("", text[: boxes[0].start]).rstrip(), text[boxes[-1].end :].lstrip(" $")
    joined = ",".join(distinct)
    return f"({joined})" if before.endswith("(") and after.startswith(")") and len(distinct) > 1 else joined


def _formula(text: str, boxes: list[Box]) -> str | None:
    r"""The formula whose parts the boxes are, as in `-\boxed{3}` and `\boxed{3} + \boxed{4}i`. None where none is,
    or where an equation leaves them to fill in (`\boxed{3} + \boxed{4} = 7`).
    """
    before = text[max(0, boxes[0].start - 20) : boxes[0].start]
    joints = [text[one.end : other.start] for one, other in pairwise(boxes)]
    contents = [box.content for box in boxes]
    if len(boxes) == 2 and _OVER.fullmatch(joints[0]) and _FRACTION.search(before):
        return rf"\frac{{{contents[0]}}}{{{contents[1]}}}"
    minus = "-" if _MINUS.search(before) and not _BULLET.search(before) else ""
    factor = _FACTOR.match(text, boxes[-1].end)
    end = factor.end() if factor is not None else boxes[-1].end
    if (
        not all(map(_OPERATOR.fullmatch, joints))
        or not (minus or factor or joints)
        or (joints and _EQUALS.match(text, end))
    ):
        return None
    joined = "".join([content + joint for content, joint in zip(contents, [*joints, ""], strict=True)])
    return minus + joined + text[boxes[-1].end : end]


def _boxes(text: str) -> list[Box]:
    """All boxes that are closed, and not inside of another, in order. One pass over the braces."""
    braces = [(brace.start(), brace[0]) for brace in _BRACE.finditer(text)]
    closing: dict[int, int] = {}
    opened: list[int] = []
    for position, brace in braces:
        if brace == "{":
            opened.append(position)
        elif brace == "}" and opened:
            closing[opened.pop()] = position
    boxes: list[Box] = []
    for found in _BOX.finditer(text):
        if boxes and found.start() < boxes[-1].end:
            continue
        at = found.end()
        while at < len(text) and text[at].isspace():
            at += 1
        if text[at : at + 1] == "{":
            if at in closing and (content := _content(text[at + 1 : closing[at]])):
                boxes.append(Box(content, found.start(), closing[at] + 1))
        elif bare := _UNBRACED.match(text, found.end()):
            content = _content((bare[1] or bare[2]).rstrip(".,;"))
            if content:
                boxes.append(Box(content, found.start(), bare.end()))
    return [box for box in boxes if not _PLACEHOLDER.fullmatch(box.content)]


def _content(inside: str) -> str:
    """Without dollar signs around formulas, which a box is already, and without boxes in boxes."""
    content = _MARKED.sub("", inside.strip(), count=1) if _MARKED.match(inside.strip()) else inside.strip()
    if content.startswith(("\\boxed{", "\\fbox{")) and content.endswith("}"):
        content = content.partition("{")[2][:-1].strip()
    if "$" in content and "\\$" not in content and content.count("$") % 2 == 0:
        content = " ".join(content.replace("$", " ").split())
    return content
