"""Terms: what answers are compared by, nested tuples whose first element says what they are."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from kinetics_serve.answers import names

Term = str | tuple[Any, ...]


def set_of(values: Iterable[Term]) -> Term:
    """A set of terms; one of a single term is that term, and sets inside are part of it."""
    elements: set[Term] = set()
    for value in values:
        elements |= set(value[1:]) if value[0] == "set" else {value}
    return next(iter(elements)) if len(elements) == 1 else ("set", *sorted(elements, key=repr))


def named(pairs: Sequence[tuple[str, Term]], lettered: bool) -> Term:
    """Values with their names. lettered: all names are letters: then their values in the order of the names are a
    tuple, of which there are several where the names begin again.
    """
    order = [name for name, _ in pairs]
    if names.enumerate_one(order):
        return set_of(value for _, value in pairs)
    count = len(set(order))
    if not lettered or order != order[:count] * (len(order) // count):
        return "named", *sorted(pairs, key=repr)
    rounds = [sorted(pairs[start : start + count], key=itemgetter(0)) for start in range(0, len(pairs), count)]
    return set_of(("tuple", *(value for _, value in each)) for each in rounds)


def in_order(letters: Sequence[str], value: Term) -> Term:
    """A tuple whose elements have the names (r, h), in the order of these, so that it is that of h = 3, r = 2."""
    if value[0] == "set" and letters:
        return set_of(in_order(letters, each) for each in value[1:])
    if value[0] != "tuple" or len(value) != len(letters) + 1:
        return value
    return "tuple", *(each for _, each in sorted(zip(letters, value[1:], strict=True), key=itemgetter(0)))
