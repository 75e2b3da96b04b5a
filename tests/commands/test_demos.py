"""The demos from first question to last line, before a stand-in for vLLM in place of the embedded engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.demos import budgets, calibration
from kinetics_serve.commands.main import app
from kinetics_serve.engine.embedded import bundled_model
from tests.fake_vllm import running_fake_vllm
from tests.ledger.server import front_end


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of the bundled model's name, which is right twice of three times, where a demo would start its own."""
    with running_fake_vllm(tmp_path) as fake:
        fake.models = (bundled_model.NAME,)
        fake.kv_budget = 1024
        fake.word = lambda seed: "7 " if seed % 3 == 0 else "56 "
        with front_end(fake, None, tmp_path, tmp_path / "log") as running:

            @contextmanager
            def already(*options: str) -> Iterator[str]:
                yield running.url

            for demo in (budgets, calibration):
                monkeypatch.setattr(demo, "serving", already)
            yield


@pytest.mark.usefixtures("serving")
def test_demo_says_what_each_budget_bought() -> None:
    """Its exit status says whether answers got better, which a stand-in's don't."""
    told = CliRunner().invoke(app, ["demo"]).output
    assert "spent more than its budget" not in told
    assert "times the eFLOPs bought" in told
    assert len([line for line in told.splitlines() if " majority_vote " in line]) == 4


@pytest.mark.usefixtures("serving")
def test_calibrate_demo_goes_from_questions_to_plans(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate-demo", "--out", str(tmp_path / "made"), "--limit", "2"])
    assert done.exit_code == 0, f"{done.output}{done.exception!r}"
    assert (tmp_path / "made" / "calibration.json").is_file()
    assert list((tmp_path / "made" / "figures").glob("frontier.*"))
