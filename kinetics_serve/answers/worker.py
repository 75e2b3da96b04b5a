"""What runs in the process that does algebra: answers in, keys out. Importing it loads SymPy and warms the parser."""

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from kinetics_serve.answers.equivalence import math_key, text_key, unquoted
from kinetics_serve.answers.formula import NotAFormula
from kinetics_serve.answers.notation import plain
from kinetics_serve.answers.structure import term

logger = logging.getLogger(__name__)

_WARM_UP = (
    r"\frac{\sqrt{2}+1}{3}",
    r"\sqrt[3]{2}",
    r"2^{n+1} \sin(2x) - \cos x",
    r"x^2 + 2x + 1 \le 3",
    r"[-1, 2) \cup (3, \infty)",
    r"\log_2 8 + e^{i\pi}",
    r"\sum_{k=1}^{n} k",
    r"(1, 2), (3, \frac{\pi}{2})",
    r"y = 3x + 2",
    r"\binom{5}{2} \cdot 4!",
)
"""The parser's tables are built as it meets constructs: what is met here costs no answer anything."""


class OutOfTime(BaseException):
    """Not an Exception, which SymPy may catch."""


def key(answer: str) -> str:
    """The key of an answer that may be mathematical. Takes as long as it takes."""
    try:
        return math_key(term(unquoted(plain(answer), "", "")))
    except NotAFormula:
        return text_key(answer)
    except Exception as error:  # whatever SymPy makes of a stranger's text
        logger.debug("an answer could not be read: %s", type(error).__name__)
        return text_key(answer)


def keys(answers: Sequence[str], limit_s: float) -> list[str]:
    """The keys of the answers, up to and without the first that takes longer than `limit_s` seconds."""
    found: list[str] = []
    signal.signal(signal.SIGALRM, _give_up)
    try:
        for answer in answers:
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            found.append(key(answer))
    except OutOfTime:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return found


def _give_up(*_: Any) -> None:
    raise OutOfTime


def _warm_up() -> None:
    sys.set_int_max_str_digits(0)  # a number that is worked out may be long, and its process can be killed
    for answer in _WARM_UP:
        key(answer)


_warm_up()
