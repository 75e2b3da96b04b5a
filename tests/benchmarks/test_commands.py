"""The benchmarks' commands, as small as they go. What they measure here says nothing; that they measure does."""

import json
import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.test_architecture import ROOT

TRACES = ROOT / "examples" / "traces" / "gsm8k-16.jsonl"
DAY = "--engines 2 --front-ends 1 --samples-per-day 2e4 --from-hour 15 --hours 0.05 --warm-minutes 1 --stretch 1"
COSTS = {
    "front_end": {"256": 0.02, "1280": 0.09},
    "routing": {"10": 3e-5, "10000": 26e-5},
    "check_s": 9e-4,
    "ledger": {"sqlite": {"cpu_s": 0.012, "requests_per_s": 19.0}},
}
"""As `costs` writes them."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`python -m MODULE ARGUMENTS` at the root of the repository; in this process, which has imported most of it."""
    monkeypatch.chdir(ROOT)

    def as_main(module: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        runpy.run_module(module, run_name="__main__", alter_sys=True)

    ours = logging.getLogger("kinetics_serve")
    level = ours.level
    yield as_main
    ours.setLevel(level)  # which the fleet raises for its process


def test_planning(run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata, *trials = TRACES.read_text().splitlines()
    asked = list(dict.fromkeys(json.loads(trial)["query"] for trial in trials))[:4]
    few = [trial for trial in trials if json.loads(trial)["query"] in asked and json.loads(trial)["trial"] < 4]
    (tmp_path / "few.jsonl").write_text("\n".join([metadata, *few]))
    run("benchmarks.planning", tmp_path / "few.jsonl", "--splits", 1, "--out", tmp_path)
    assert "self-consistency" in capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    assert {row["aim"] for row in json.loads(written.read_text())["rows"]} == {"accuracy", "budget", "spend"}


def test_gateway(run: Callable[..., None], tmp_path: Path) -> None:
    """Its first part: the others differ in what is asked, and take longer."""
    out = tmp_path / "gateway.json"
    run("benchmarks.gateway", "--only", "pass_through", "--seconds", 0.3, "--out", out)
    assert json.loads(out.read_text())["pass_through"]


def test_clients(run: Callable[..., None], tmp_path: Path) -> None:
    """Whether each reports what was true, on a machine that does little else, is for `make conformance`."""
    out = tmp_path / "clients.json"
    with pytest.raises(SystemExit):
        run("benchmarks.clients", "--only", "LangChain", "--out", out)
    plain, budget = json.loads(out.read_text())
    assert plain["reported"]["tokens"] == budget["reported"]["tokens"] == plain["true"]["tokens"]


def test_fleet(run: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("benchmarks.fleet", "simulate", *DAY.split(), "--out", tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["summary"]["most_spent"] <= 1
    (tmp_path / "costs.json").write_text(json.dumps(COSTS))
    capsys.readouterr()
    run("benchmarks.fleet", "limits", tmp_path / "costs.json", "--engines", 10000, "--requests", 290)
    assert json.loads(capsys.readouterr().out)


def test_attention_speed(run: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="it is timed beside vLLM's own attention")
    out = tmp_path / "attention.json"
    run("benchmarks.attention_speed", "--shape", "smollm2", "--layers", 1, "--rounds", 1, "--out", out)
    assert "smollm2" in json.loads(out.read_text())


def test_selection_quality(run: Callable[..., None], tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="keys and values are tensors")
    out = tmp_path / "selection.json"
    small = ("--tokens", 512, "--budgets", 128, "--page-sizes", 16, "--step", 256, "--selectors", "low_rank")
    run("benchmarks.selection_quality", *small, "--out", out)
    (point,) = json.loads(out.read_text())["points"]
    assert 0 < point["bytes_share"] < 1
