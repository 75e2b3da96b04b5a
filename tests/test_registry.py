import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kinetics_serve.registry import BrokenPart, Registry, UnknownPart


@dataclass(frozen=True)
class Fruit:
    name: str
    colour: str = "red"


MODULE = """
from tests_fruit_spec import Fruit
apple, stone = Fruit("apple"), "no fruit"
"""


@pytest.fixture
def fruits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[Fruit]:
    """A registry whose parts are announced by two packages that were really installed."""
    announce(tmp_path, "orchard", "apple = orchard:apple\nstone = orchard:stone\nworm = no_such_module:worm\n")
    announce(tmp_path, "rival", "pear = orchard:apple\n")
    (tmp_path / "orchard.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "tests_fruit_spec", sys.modules[__name__])
    monkeypatch.delitem(sys.modules, "orchard", raising=False)
    return Registry("tests.fruits", "fruit", Fruit)


def announce(folder: Path, package: str, lines: str) -> None:
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[tests.fruits]\n{lines}")


def test_names_are_listed_without_importing_anything(fruits: Registry[Fruit]) -> None:
    assert fruits.names == ["apple", "pear", "stone", "worm"]
    assert "orchard" not in sys.modules


def test_a_part_is_loaded_once(fruits: Registry[Fruit]) -> None:
    assert fruits.get("apple") == Fruit("apple")
    assert fruits.get("apple") is fruits.get("apple")


def test_an_unknown_name_is_refused_with_those_that_there_are_and_the_nearest(fruits: Registry[Fruit]) -> None:
    with pytest.raises(UnknownPart, match=r"no fruit is called 'aple': there are apple, .*did you mean 'apple'\?"):
        fruits.get("aple")
    with pytest.raises(UnknownPart, match=r"worm$"):
        fruits.get("zzz")
    with pytest.raises(UnknownPart, match="there are none"):
        Registry("tests.nothing", "fruit", Fruit).get("apple")


def test_a_broken_part_names_its_package_and_the_reason(fruits: Registry[Fruit]) -> None:
    with pytest.raises(BrokenPart, match=r"'worm' of orchard can't be loaded: ModuleNotFoundError"):
        fruits.get("worm")
    with pytest.raises(BrokenPart, match=r"'stone' of orchard can't be used: orchard:stone is a str, not a Fruit"):
        fruits.get("stone")


def test_a_name_that_two_packages_announce_is_nobodys(fruits: Registry[Fruit], tmp_path: Path) -> None:
    announce(tmp_path, "third", "apple = orchard:apple\n")
    with pytest.raises(BrokenPart, match="orchard and third"):
        fruits.get("apple")


def test_a_part_that_calls_itself_something_else_is_refused(fruits: Registry[Fruit]) -> None:
    with pytest.raises(BrokenPart, match="'pear' of rival can't be used: it calls itself 'apple'"):
        fruits.get("pear")
