"""Which servers have which model, whether they are up or not."""

from bisect import insort
from collections.abc import Collection, Iterator, Sequence

from kinetics_serve.engine.upstream import Upstream


class Members:
    """The servers of each model, in the order of the configuration.

    A server that is down keeps its place, so that the others' prompts stay with them, and its own come back to it.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._places = {upstream: place for place, upstream in enumerate(upstreams)}
        self._models: dict[Upstream, frozenset[str]] = {}
        self._members: dict[str, list[Upstream]] = {}

    def listed(self, upstream: Upstream, models: Collection[str]) -> None:
        """A server says that these are its models."""
        before, now = self._models.get(upstream, frozenset()), frozenset(models)
        self._models[upstream] = now
        for gone in before - now:
            self._members[gone].remove(upstream)
            if not self._members[gone]:
                del self._members[gone]
        for new in now - before:
            insort(self._members.setdefault(new, []), upstream, key=self._places.__getitem__)

    def of(self, model: str) -> Sequence[Upstream]:
        return self._members.get(model, ())

    def __iter__(self) -> Iterator[Sequence[Upstream]]:
        """Of each model."""
        return iter(self._members.values())

    def place(self, upstream: Upstream) -> int:
        """In the configuration."""
        return self._places[upstream]
