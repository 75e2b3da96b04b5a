"""The notebooks in examples/: what they show is what their code prints."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.test_architecture import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
DRAWN = {"law": "token_cost.svg", "savings": "savings.svg"}
"""The figure that each leaves, which docs/figures has."""


def cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_what_it_shows(notebook: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    folder = tmp_path / "examples" / "notebooks"
    script = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    words = [sys.executable, "-c", script]
    environment = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    shown = "".join("".join(output["text"]) for cell in cells(notebook) for output in cell["outputs"])
    assert done.stdout == shown
    assert "<svg" in (folder / DRAWN[notebook.stem]).read_text(encoding="utf-8")
    assert (ROOT / "docs" / "figures" / DRAWN[notebook.stem]).is_file()
