"""Numbers that pages call computed are what the code computes, and what they do on recorded traces works."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from kinetics_serve.cost import DENSE, KVPolicy, Price, load_architecture
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.planner.capacity import Engine, Workload, capacity
from tests.test_architecture import ROOT

MODELS = ROOT / "tests" / "data" / "models"
CHOOSE = ROOT / "docs" / "how-to" / "choose.md"
PROMPT, GENERATED, SAMPLES = 500, 8000, 8
SPARSE = KVPolicy(1024, 16, 2)


def price(model: str, hardware: str) -> Price:
    return Price.on(load_architecture(str(MODELS / f"{model}.json")), GPUS[hardware])


def workload(model: str, hardware: str, kv: KVPolicy = DENSE) -> float:
    """eFLOPs."""
    priced = price(model, hardware)
    return priced.eflops(priced.together(PROMPT, GENERATED, SAMPLES, kv))


def row(text: str, name: str) -> list[str]:
    found = re.search(rf"^\| *{re.escape(name)} *\|(.*)\|$", text, re.M)
    assert found is not None, name
    return [cell.strip().strip("`") for cell in found[1].split("|")]


def test_models_are_compared_by_what_the_workload_costs() -> None:
    text = CHOOSE.read_text()
    models = row(text, "")
    priced = [price(model, "h100") for model in models]
    assert row(text, "active parameters") == [f"{each.architecture.active_parameters / 1e9:.2f}e9" for each in priced]
    assert row(text, "KV bytes a token") == [f"{each.architecture.kv_token_bytes:,}" for each in priced]
    for name, kv in (("eFLOPs of the workload, dense", DENSE), ("with a KV budget of 1,024", SPARSE)):
        told = [float(cell) for cell in row(text, name)]
        assert told == pytest.approx([workload(model, "h100", kv) for model in models], rel=5e-3)


@pytest.mark.parametrize("hardware", ["h200", "h100", "mi300x", "b200", "l40s"])
def test_devices_are_compared_by_their_seconds(hardware: str) -> None:
    eflops, rate, seconds = map(float, row(CHOOSE.read_text(), f"`{hardware}`"))
    assert eflops == pytest.approx(workload("Qwen3-8B", hardware), rel=5e-3)
    assert rate == pytest.approx(GPUS[hardware].flops, rel=1e-3)
    assert seconds == pytest.approx(workload("Qwen3-8B", hardware) / GPUS[hardware].flops, abs=0.06)


def test_engines_are_counted_for_the_workload() -> None:
    engine = Engine(replace(GPUS["h100"], dollars_per_hour=2.5), 80e9)
    qwen3 = load_architecture(str(MODELS / "Qwen3-8B.json"))
    needed = [capacity(qwen3, engine, Workload(10, SAMPLES, PROMPT, GENERATED), kv) for kv in (DENSE, SPARSE)]
    text = CHOOSE.read_text()
    assert row(text, "engines of one H100") == [str(each.engines) for each in needed]
    assert row(text, "tokens/s of an engine") == [f"{each.engine_tokens:,.0f}" for each in needed]
    assert row(text, "seconds a request") == [f"{each.request_s:.1f}" for each in needed]
    assert row(text, "dollars a request") == [f"{each.dollars:.4f}" for each in needed]


def test_the_law_says_what_a_token_costs() -> None:
    small, large = price("Qwen3-0.6B", "h100"), price("Qwen3-8B", "h100")
    token = {each: each.eflops(each.decode(15_999, 1)) for each in (small, large)}
    assert token[small] / token[large] == pytest.approx(3 / 4, abs=0.02)
    assert large.architecture.parameters / small.architecture.parameters == pytest.approx(14, abs=0.5)
    assert token[large] / large.eflops(large.decode(15_999, 1, SPARSE)) == pytest.approx(7, abs=0.5)


@pytest.mark.parametrize("page", ["self-consistency", "strategy"])
def test_the_traces_that_a_page_replays_are_there_and_its_options_taken(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
    for line in re.findall(r"^    kinetics-serve (replay .*)$", text, re.M):
        words = line.split()
        words[1] = str(ROOT / "examples" / "traces" / "gsm8k-16.jsonl")
        if "first_to_k" in words:  # which only an installed package has: tests/test_examples.py
            words[words.index("first_to_k")] = "majority_vote"
        done = CliRunner().invoke(app, [*words, "--repeats", "2"])
        assert done.exit_code == 0, done.output
        assert "accuracy" in done.stdout
