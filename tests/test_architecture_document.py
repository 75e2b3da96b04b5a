"""ARCHITECTURE.md and the code tell the same story."""

import re

from tests.test_architecture import LAYERS, ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PATHS = {name for name in re.findall(r"`(\w[\w./-]*)`", TEXT) if re.search(r"/|\.(py|md)$", name)}
PACKAGES = (ROOT / "kinetics_serve", ROOT / "sparse_backend")


def test_every_file_and_package_that_it_names_exists() -> None:
    folders = [ROOT, *PACKAGES, *(ROOT / "kinetics_serve").iterdir()]
    named = PATHS | set(re.findall(r"\]\(([\w./-]+)\)", TEXT))
    assert len(named) > 50
    assert not [path for path in named if not any((folder / path).exists() for folder in folders)]


def test_it_names_every_package() -> None:
    for package in PACKAGES:
        for file in package.rglob("__init__.py"):
            assert any(f"/{file.parent.name}/" in f"/{path}" for path in PATHS), file.parent


def test_its_floors_are_those_that_are_kept() -> None:
    rows = re.findall(r"^\| (\d+) \| (`.*?`) \|", TEXT, re.M)
    told = [(int(floor), name) for floor, names in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", names)]
    assert told == [(len(LAYERS) - index, name) for index, layer in enumerate(LAYERS) for name in layer]
