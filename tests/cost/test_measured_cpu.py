import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from kinetics_serve.cost import HardwareProfile, hardware, measured_cpu


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kinetics-serve" / "hardware.json"


def refuse() -> HardwareProfile:
    raise AssertionError("measured although cached")


def test_a_cpu_is_measured_once_and_then_read_from_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_cpu, "READ_BYTES", 1 << 26)
    measured = hardware.profile("cpu")
    assert measured.name == "cpu"
    assert measured_cpu.cpu_name() in measured.source
    assert 1e8 < measured.flops < 1e15
    assert 1e8 < measured.bytes_per_second < 1e13
    monkeypatch.setattr(measured_cpu, "measure_cpu", refuse)
    assert hardware.profile("cpu") == measured
    assert [file.name for file in cache.parent.iterdir()] == ["hardware.json"]


def broken(cache: Path) -> None:
    cache.write_text("{")


def not_an_object(cache: Path) -> None:
    cache.write_text("[]")


def measured_in_another_way(cache: Path) -> None:
    content = {"cpu": measured_cpu.cpu_name(), "flops": 1.0, "bytes_per_second": 1.0, "source": "measured"}
    cache.write_text(json.dumps(content))


def of_another_cpu(cache: Path) -> None:
    cache.write_text(json.dumps({"cpu": "another", "flops": 1.0, "bytes_per_second": 1.0}))


def incomplete(cache: Path) -> None:
    cache.write_text(json.dumps({"cpu": measured_cpu.cpu_name()}))


@pytest.mark.parametrize("spoil", [broken, not_an_object, of_another_cpu, measured_in_another_way, incomplete])
def test_a_cache_that_is_not_this_cpus_is_measured_again(
    spoil: Callable[[Path], None], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = HardwareProfile("cpu", 3e11, 3e10, f"measured: {measured_cpu.cpu_name()}")
    monkeypatch.setattr(measured_cpu, "measure_cpu", lambda: measured)
    cache.parent.mkdir()
    spoil(cache)
    assert measured_cpu.cached_cpu() == measured
    monkeypatch.setattr(measured_cpu, "measure_cpu", refuse)
    assert measured_cpu.cached_cpu() == measured


def test_an_engines_rates_count_where_there_is_one_and_numpys_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(measured_cpu, "READ_BYTES", 1 << 26)
    source = measured_cpu.measure_cpu().source
    assert ", GEMM of torch, " in source
    assert ("vLLM's attention" in source) == (find_spec("vllm") is not None)
    monkeypatch.setattr(measured_cpu, "ENGINE_RATES", "raise ImportError")
    assert "fp32 GEMM of numpy, plain reads" in measured_cpu.measure_cpu().source


def test_without_vllm_its_reads_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_cpu, "READ_BYTES", 1 << 26)
    monkeypatch.setattr(measured_cpu, "ENGINE_RATES", "print(3e11)")
    measured = measured_cpu.measure_cpu()
    assert measured.flops == 3e11
    assert ", GEMM of torch, plain reads" in measured.source


def test_measuring_again_replaces_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = HardwareProfile("cpu", 3e10, 1e9, f"measured: {measured_cpu.cpu_name()}")
    idle = replace(busy, flops=3e11, bytes_per_second=3e10)
    monkeypatch.setattr(measured_cpu, "measure_cpu", lambda: busy)
    assert measured_cpu.cached_cpu() == busy
    monkeypatch.setattr(measured_cpu, "measure_cpu", lambda: idle)
    assert measured_cpu.remeasured_cpu() == idle
    monkeypatch.setattr(measured_cpu, "measure_cpu", refuse)
    assert measured_cpu.cached_cpu() == idle


def test_without_a_place_for_the_cache_it_still_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    measured = HardwareProfile("cpu", 3e11, 3e10, "measured")
    monkeypatch.setattr(measured_cpu, "measure_cpu", lambda: measured)
    assert measured_cpu.cached_cpu() == measured


def test_a_container_is_left_most_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_cpu, "memory_limit_bytes", lambda: 64 << 20)
    assert measured_cpu._readable_bytes() <= 16 << 20
