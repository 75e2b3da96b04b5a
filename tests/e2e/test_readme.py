"""What the README shows works as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Server

README = Path(__file__).parents[2] / "README.md"
THERE = "http://localhost:8000/v1"


def test_the_snippet_runs_and_its_answer_is_right(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert THERE in snippet
    found: dict[str, Any] = {}
    exec(snippet.replace(THERE, f"{server.url}/v1"), found)
    bill = found["completion"].model_extra["kinetics"]
    assert "Tokyo" in found["completion"].choices[0].message.content
    assert bill["spent_eflops"] <= bill["budget_eflops"]
    printed = capsys.readouterr().out
    assert "Tokyo" in printed
    assert "votes" in printed
