"""The door for selectors: entry points of the group `sparse_backend.selectors`, built-in ones included."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from sparse_backend.selection.base import Selector

GROUP = "sparse_backend.selectors"


def selector_names() -> list[str]:
    """Names of all installed selectors."""
    return sorted(entry_points(group=GROUP).names)


def get_selector(name: str) -> Selector:
    """The selector called `name`. Raises LookupError if there is none or two, TypeError if it is no Selector."""
    found: dict[str, EntryPoint] = {point.value: point for point in entry_points(group=GROUP, name=name)}
    if not found:
        raise LookupError(
            f"there is no selector {name!r}: choose one of those installed, {', '.join(selector_names())}"
        )
    if len(found) > 1:
        raise LookupError(f"two packages call a selector {name!r}, {' and '.join(sorted(found))}: remove one of them")
    ((value, point),) = found.items()
    kind = point.load()
    if not (isinstance(kind, type) and issubclass(kind, Selector)):
        raise TypeError(f"the selector {name!r}, {value}, is not a subclass of sparse_backend.selection.Selector")
    selector: Selector = kind()
    return selector
