"""The demos, with fewer questions, on the real engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.demos import budgets, calibration
from kinetics_serve.commands.main import app
from tests.e2e.conftest import Server

pytestmark = pytest.mark.e2e


@pytest.fixture
def running(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that runs already, where a demo would start one of its own."""

    @contextmanager
    def serving(*options: str) -> Iterator[str]:
        yield server.url

    for demo in (budgets, calibration):
        monkeypatch.setattr(demo, "serving", serving)


@pytest.mark.usefixtures("running")
def test_demo_says_what_each_budget_bought(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("TIMES_TABLES", "CAPITALS", "AFTER_A_LOG"):
        task = getattr(budgets, name)
        monkeypatch.setattr(budgets, name, replace(task, questions=task.questions[:1], max_tokens=24))
    CliRunner().invoke(app, ["demo"])  # whose exit status says whether so few questions were answered right
    told = capsys.readouterr().out
    assert "spent more than its budget" not in told
    assert "times the eFLOPs bought" in told
    assert len([line for line in told.splitlines() if "majority_vote" in line]) == 4


@pytest.mark.usefixtures("running")
def test_calibrate_demo_goes_from_questions_to_plans(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate-demo", "--out", str(tmp_path), "--limit", "1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "calibration.json").is_file()
    assert list((tmp_path / "figures").glob("frontier.*"))
