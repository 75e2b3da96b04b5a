"""The GPU benchmark, which no machine here can run for its numbers: all it does, on small shapes on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

# It has a kernel of its own, which shall run in the interpreter as the others do.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TRITON_INTERPRET", "1")
    from benchmarks import attention_gpu, gpu_layers

from sparse_backend.kernels.triton import layout, scoring
from sparse_backend.kernels.triton.layout import LowRankOffsets

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["attention_gpu"])
    assert attention_gpu.main() == 2
    assert "No GPU here" in capsys.readouterr().err


def test_it_needs_torch_and_triton_alone() -> None:
    """As on a machine that lends its GPU for a quarter of an hour: neither vLLM nor the project is installed there."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *_):\n"
        "        assert name.split('.')[0] not in ('vllm', 'kinetics_serve', 'transformers'), name\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.metadata, torch, triton\n"
        "importlib.metadata.entry_points = None\n"
        "import benchmarks.attention_gpu, tests.sparse_backend.gpu_caches\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)


def once(work: Callable[[], object], rounds: int = 1) -> float:
    work()
    return 1.0


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(layout, "SMS", 2)
    for module in (attention_gpu, gpu_layers):
        monkeypatch.setattr(module, "SHAPES", {"Qwen3-8B": (4, 2, 32)})
    monkeypatch.setattr(gpu_layers, "PHASES", 2)
    monkeypatch.setattr(gpu_layers, "STREAM", 64)
    settings: dict[str, object] = {
        "BATCHES": (2,),
        "CONTEXTS": (256, 384),
        "BUDGETS": (160,),
        "CACHE_BYTES": 2**12,
        "STEP_LAYERS": 2,
    }
    settings["GRAPH_CONTEXT"] = 384
    settings["OWN_TOKENS"] = 100
    for name, value in settings.items():
        monkeypatch.setattr(attention_gpu, name, value)
    monkeypatch.setattr(attention_gpu, "TUNABLES", {"score": {(scoring, "CHUNK"): (32,), (scoring, "STAGES"): (1,)}})
    monkeypatch.setattr(attention_gpu, "ROW_SECONDS", 600)
    monkeypatch.setattr(attention_gpu, "seconds", once)


@pytest.mark.usefixtures("small")
def test_a_session_is_right_against_float64_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (attention_gpu, gpu_layers):  # the interpreter takes a minute for it as it is
        monkeypatch.setattr(module, "SHAPES", {"Qwen3-8B": (2, 1, 32)})
    monkeypatch.setattr(attention_gpu, "BATCHES", (1,))
    path, sections = tmp_path / "gpu.json", ["machine", "graphs", "kernels", "step", "sweep"]
    assert attention_gpu.session(path, sections, 0, CPU) == {}
    rows = attention_gpu.session(path, sections, 60, CPU)
    assert json.loads(path.read_text()).keys() == rows.keys()
    assert {name.split("/")[0] for name in rows} == set(sections)
    assert attention_gpu.wrong(rows) == []
    assert 0 < rows["graphs/Qwen3-8B"]["worst"] < attention_gpu.WORST_ERROR
    assert rows["sweep/x1 score: CHUNK 32, STAGES 1"] == {"default": False, "seconds": 1.0 / 2}
    assert scoring.CHUNK == 16
    (budget,) = rows["kernels/Qwen3-8B x1, 256 of 384"]["budgets"].values()
    assert 0 < budget["error"] < attention_gpu.WORST_ERROR
    assert set(budget["seconds"]) == {"update", "score", "choose", "attend"}
    # A second session measures nothing again, but what is missing.
    kept = {name: row for name, row in rows.items() if not name.startswith("sweep")}
    path.write_text(json.dumps({**kept, "machine": {"gpu": "as it was"}}))
    again = attention_gpu.session(path, sections, 60, CPU)
    assert again["machine"]["gpu"] == "as it was"
    assert again.keys() == rows.keys()


@pytest.mark.usefixtures("small")
def test_samples_of_one_prompt_are_measured_beside_requests_that_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_gpu, "CONTEXTS", (256,))
    ((_, measure),) = attention_gpu.kernels(CPU)
    shared = measure()["shared"]
    assert 0 < shared["error"] < attention_gpu.WORST_ERROR
    assert shared["unshared_over_shared"] == shared["bundle_seconds"] == 1
    layers = attention_gpu.layers_of("Qwen3-8B", 2, 256, 384, CPU)
    layers.share(156)
    assert layers.step_of(160).shared_pages.tolist() == [8, 8]
    layers.share(0)
    assert layers.step_of(160).shared_pages.tolist() == [0, 0]
    row = {"budgets": {160: {"error": 0.001}}, "shared": {"error": 0.5}}
    assert attention_gpu.wrong({"kernels": row}) == ["kernels"]


def test_a_row_that_does_not_end_costs_the_others_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    code = (
        "import pathlib, sys, time, torch\n"
        "from benchmarks import attention_gpu\n"
        "attention_gpu.ROW_SECONDS = 1\n"
        "rows = {'hangs': lambda: time.sleep(600), 'fails': lambda: 1 / 0, 'goes': lambda: {'seconds': 1}}\n"
        "attention_gpu.SECTIONS = {'all': lambda device: iter(rows.items())}\n"
        "attention_gpu.session(pathlib.Path(sys.argv[1]), ['all'], 60, torch.device('cpu'))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command, root = [sys.executable, "-c", code, str(path)], Path(__file__).parents[2]
    codes = [subprocess.run(command, cwd=root, env=environment, check=False).returncode for _ in range(2)]
    assert codes == [1, 0]
    rows = json.loads(path.read_text())
    assert rows["hangs"] == {"failed": "It did not end."}
    assert "ZeroDivisionError" in rows["fails"]["failed"]
    assert rows["goes"] == {"seconds": 1}
    assert attention_gpu.wrong(rows) == ["hangs", "fails"]


@pytest.mark.usefixtures("small")
def test_it_counts_the_bytes_that_kernels_must_move() -> None:
    layers = attention_gpu.layers_of("Qwen3-8B", 2, 256, 384, CPU)
    requests_and_heads, masses, weights = 2 * 2, 4 * 16 * 2, 2 * 8 * 2
    offsets = LowRankOffsets.of(32, 16)
    means = 2 * (offsets.end - offsets.mean_values)
    assert layers.dense_bytes == requests_and_heads * 256 * 2 * 32 * 2
    assert layers.bytes_of("score", 160) == requests_and_heads * (2 * offsets.mean_values + masses)
    assert layers.bytes_of("attend", 160) == requests_and_heads * (160 * 2 * 32 * 2 + means + weights)


def test_outputs_that_are_wrong_are_named() -> None:
    rows: dict[str, attention_gpu.Row] = {
        "tests": {"passed": False},
        "graphs/a": {"worst": float("nan")},
        "kernels/b": {"budgets": {1024: {"error": 0.5}}},
        "kernels/c": {"budgets": {1024: {"error": 0.001}}},
    }
    assert sorted(attention_gpu.wrong(rows)) == ["graphs/a", "kernels/b", "tests"]
