"""Keys of answers, found in this process."""

from kinetics_serve.answers.equivalence import EquivalenceKind, quick_key
from kinetics_serve.answers.worker import key


def key_of(answer: str, kind: EquivalenceKind = "auto") -> str:
    return quick_key(answer, kind) or key(answer)
