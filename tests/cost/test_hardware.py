import os
from pathlib import Path

import pytest

from kinetics_serve.cost import hardware


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a program called nvidia-smi first on the PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("name", "intensity"), [("b200", 562.5), ("h200", 206), ("h100", 295), ("a100", 153), ("l40s", 419)]
)
def test_gpu_profiles_have_their_datasheets_intensity(name: str, intensity: float) -> None:
    profile = hardware.profile(name)
    assert profile.name == name
    assert "datasheet" in profile.source
    assert profile.intensity == pytest.approx(intensity, abs=0.5)


def test_the_b200_has_exactly_the_papers_intensity() -> None:
    assert hardware.profile("b200").intensity == 562.5


def test_unknown_hardware_is_refused_with_the_known() -> None:
    with pytest.raises(ValueError, match="'tpu'; expected one of b200, h200, h100, a100, l40s, cpu"):
        hardware.profile("tpu")


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA B200", "b200"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA L40S", "l40s"),
    ],
)
def test_a_gpu_is_detected_by_its_name(gpu: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, f"echo '{gpu}'; echo '{gpu}'")
    assert hardware.detect() == hardware.profile(name)


@pytest.mark.parametrize("gpu", ["NVIDIA GeForce RTX 4090", "NVIDIA GH200 480GB", "NVIDIA L40"])
def test_a_gpu_without_a_profile_is_not_guessed(gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, f"echo '{gpu}'")
    with pytest.raises(ValueError, match=gpu):
        hardware.detect()


@pytest.mark.parametrize("script", ["exit 9", "true"])
def test_nvidia_smi_without_a_gpu_is_no_gpu(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, script)
    assert hardware.gpu_name() is None
