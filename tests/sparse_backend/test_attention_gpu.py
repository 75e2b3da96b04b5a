"""The GPU benchmark, which no machine here can run for its numbers: its arithmetic, on a small shape on the CPU."""

import sys
from argparse import Namespace
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import attention_gpu
from sparse_backend.kernels.triton import layout


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["attention_gpu"])
    assert attention_gpu.main() == 2
    assert "No GPU here" in capsys.readouterr().err


def once(work: Callable[[], object]) -> float:
    work()
    return 1.0


def test_its_outputs_agree_with_float64_and_it_counts_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(layout, "PROGRAMS", 4)
    monkeypatch.setattr(attention_gpu, "MODELS", {"tiny": (4, 2, 32)})
    monkeypatch.setattr(attention_gpu, "CACHE_BYTES", 1)
    monkeypatch.setattr(attention_gpu, "seconds", once)
    arguments = Namespace(selector="low_rank", page_size=16, batch=1, share=2)
    row = attention_gpu.measure("tiny", 256, arguments, torch.device("cpu"))
    assert 0 < max(row["error"].values()) < attention_gpu.WORST_ERROR
    # Half of the keys and values, and one tile for each of two blocks and two heads.
    tile = 5 * 32 * 8 // 2 + 3 * 128 // 2 + 4 * 4 * 8 + 4 * 32 // 2 + 4 * 4
    assert row["bytes_per_second"]["sparse"] == 2 * (128 * 2 * 32 * 2 + 2 * tile)
    assert row["bytes_per_second"]["dense_paged"] == 2 * 256 * 2 * 32 * 2
    assert row["speedup"] == 1
