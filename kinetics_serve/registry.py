"""Parts found by name: ours and other packages', each announced by an entry point and imported when first asked for."""

from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

Spec = TypeVar("Spec")


class UnknownPart(ValueError):
    """No part has that name; the message lists those that there are, and the nearest."""


class BrokenPart(RuntimeError):
    """A part that is announced but can't be used; the message says by which package, and why."""


class Registry(Generic[Spec]):
    """The parts of one kind.

    group: of the entry points, such as `kinetics_serve.strategies`. noun: what a part is called in messages.
    spec: the class whose instances the entry points lead to.
    """

    def __init__(self, group: str, noun: str, spec: type[Spec]) -> None:
        self.group = group
        self.noun = noun
        self._spec = spec
        self._loaded: dict[str, Spec] = {}

    @property
    def names(self) -> list[str]:
        """In alphabetical order. Nothing is imported for it."""
        return sorted(self._found)

    def get(self, name: str) -> Spec:
        """The part of that name. Raises UnknownPart, BrokenPart."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    @cached_property
    def _found(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = defaultdict(list)
        for point in entry_points(group=self.group):
            found[point.name].append(point)
        return dict(found)

    def _load(self, name: str) -> Spec:
        points = self._found.get(name)
        if points is None:
            there = ", ".join(self.names) or "none"
            hint = did_you_mean(name, self.names)
            raise UnknownPart(f"no {self.noun} is called {name!r}: there are {there}{hint}")
        if len(points) > 1:
            packages = " and ".join(sorted(map(_package, points)))
            raise BrokenPart(f"the {self.noun} {name!r} is announced by {packages}: uninstall all but one")
        point = points[0]
        try:
            part = point.load()
        except Exception as error:  # whatever a stranger's module does when it is imported
            reason = f"{type(error).__name__}: {error}"
            raise BrokenPart(f"the {self.noun} {name!r} of {_package(point)} can't be loaded: {reason}") from error
        if not isinstance(part, self._spec):
            given = f"{point.value} is a {type(part).__name__}, not a {self._spec.__name__}"
            raise BrokenPart(f"the {self.noun} {name!r} of {_package(point)} can't be used: {given}")
        called = getattr(part, "name", name)
        if called != name:
            advice = f"it calls itself {called!r}: its entry point has to have the same name"
            raise BrokenPart(f"the {self.noun} {name!r} of {_package(point)} can't be used: {advice}")
        return part


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that nobody knows: the nearest one that is known, if any is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
