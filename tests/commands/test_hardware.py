"""What `kinetics-serve hardware` says of this machine."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.cost import HardwareProfile, hardware, measured_cpu

PROFILE = HardwareProfile("cpu", 8e10, 5e9, "this machine, as it was measured")


def test_it_measures_again_and_keeps_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured_cpu, "measure_cpu", lambda: PROFILE)
    done = CliRunner().invoke(app, ["hardware", "--measure"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("cpu: 16.0 FLOPs per byte\n")
    assert hardware.profile("cpu") == PROFILE


def test_it_says_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect", lambda: PROFILE)
    assert PROFILE.source in CliRunner().invoke(app, ["hardware"]).stdout
