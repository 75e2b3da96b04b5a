"""The documents and the code tell the same story."""

import re
from pathlib import Path

import pytest

from tests.test_architecture import LAYERS, ROOT

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
PACKAGES = (ROOT / "kinetics_serve", ROOT / "sparse_backend")
FOLDERS = (ROOT, *PACKAGES, *(ROOT / "kinetics_serve").iterdir(), ROOT / "sparse_backend" / "kernels" / "triton")
"""What a path in a document may be in."""

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


def paths(text: str) -> set[str]:
    """Files of ours, and folders with a slash at their end, in code quotes. NAME stands for any."""
    named = re.findall(r"`(\w[\w./-]*)`", text)
    return {name for name in named if re.search(r"/$|/.*\.\w+$|\.(py|md)$", name) and "NAME" not in name}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_documents_name_and_link_to_exists(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (document.parent / link).exists()]
    assert not [path for path in paths(text) if not any((folder / path).exists() for folder in FOLDERS)]


def test_the_architecture_names_every_package() -> None:
    for package in PACKAGES:
        for file in package.rglob("__init__.py"):
            assert any(f"/{file.parent.name}/" in f"/{path}" for path in paths(ARCHITECTURE)), file.parent


def test_the_architectures_floors_are_those_that_are_kept() -> None:
    rows = re.findall(r"^\| (\d+) \| (`.*?`) \|", ARCHITECTURE, re.M)
    told = [(int(floor), name) for floor, names in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", names)]
    assert told == [(len(LAYERS) - index, name) for index, layer in enumerate(LAYERS) for name in layer]
