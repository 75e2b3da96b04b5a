import os
from pathlib import Path

import pytest

from kinetics_serve.cost import Architecture, AttentionLayers, HardwareProfile, Price, hardware, profiles


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """Puts a program of that name first on the PATH."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("name", "intensity"),
    [("b200", 281.25), ("paper-b200", 562.5), ("h200", 206), ("h100", 295), ("h100-pcie", 378), ("a100", 153),
     ("l40s", 419), ("mi300x", 247), ("tpu-v5e", 240.5)],
)  # fmt: skip
def test_profiles_have_their_datasheets_intensity(name: str, intensity: float) -> None:
    profile = hardware.profile(name)
    assert profile.name == name
    assert profile.intensity == pytest.approx(intensity, abs=0.6)


def test_every_profile_has_a_source_and_narrower_dtypes_are_no_slower() -> None:
    assert len(profiles.PROFILES) == len(profiles.KNOWN)
    for profile in profiles.PROFILES.values():
        assert len(profile.source) > 10
        assert profile.flops <= (profile.fp8 or profile.flops) <= (profile.fp4 or profile.fp8 or profile.flops)


def test_a_checkpoint_is_priced_at_the_rate_of_its_dtype_or_the_next_wider_that_the_device_has() -> None:
    b200, h100, a100 = map(hardware.profile, ("b200", "h100", "a100"))
    assert b200.intensity_in("fp4") == 2 * b200.intensity_in("fp8") == 4 * b200.intensity_in("bf16")
    assert h100.intensity_in("fp4") == h100.intensity_in("fp8") == 2 * h100.intensity
    assert a100.intensity_in("fp8") == a100.intensity
    architecture = Architecture("model", 10, 10, (AttentionLayers(1, 1, 1, 1),), gemm_dtype="fp8")
    assert Price.on(architecture, h100).intensity == 2 * h100.intensity


def test_unknown_hardware_is_refused_with_the_known() -> None:
    with pytest.raises(ValueError, match=r"'abacus'; expected one of b200, .*, cpu, or a \.yaml file"):
        hardware.profile("abacus")


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA GH200 144G HBM3e", "gh200-144"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 5090", "rtx5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "pro6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "pro6000-server"),
        ("NVIDIA GB10", "gb10"),
    ],
)
def test_a_gpu_is_detected_by_its_name(gpu: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "nvidia-smi", f"echo '{gpu}'; echo '{gpu}'")
    assert hardware.detect() == hardware.profile(name)


@pytest.mark.parametrize("name", ["MI300X", "MI325X", "MI355X"])
def test_an_amd_gpu_is_detected_by_amd_smi(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(
        tmp_path,
        monkeypatch,
        "amd-smi",
        f"echo 'GPU: 0'; echo '    ASIC:'; echo '        MARKET_NAME: AMD Instinct {name}'",
    )
    assert hardware.detect() == hardware.profile(name.lower())


def test_a_tpu_is_detected_by_its_machines_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hardware.TPU_TYPE, "v5litepod-8")
    assert hardware.detect() == hardware.profile("tpu-v5e")


@pytest.mark.parametrize(
    "gpu",
    ["NVIDIA GeForce RTX 3090", "NVIDIA L40", "NVIDIA H20-3e", "NVIDIA A10G", "NVIDIA GeForce RTX 4090 Laptop GPU"],
)
def test_a_gpu_without_a_profile_is_not_guessed(gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "nvidia-smi", f"echo '{gpu}'")
    with pytest.raises(ValueError, match=gpu):
        hardware.detect()


@pytest.mark.parametrize("script", ["exit 9", "true"])
def test_a_tool_without_a_device_names_none(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, "nvidia-smi", script)
    assert hardware.accelerator(tmp_path) is None


def test_an_accelerator_that_nothing_names_is_not_taken_for_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "nvidia0").touch()
    with pytest.raises(ValueError, match=r"nvidia0.*none of nvidia-smi, amd-smi, hl-smi names it"):
        hardware.accelerator(tmp_path)


def test_a_file_describes_hardware_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "card.yaml"
    file.write_text("flops: 1.0e15\nbytes_per_second: 4.0e12\nfp8: 2.0e15\nsource: measured\n")
    assert hardware.profile(str(file)) == HardwareProfile("card", 1e15, 4e12, "measured", 2e15)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops: 1.0e15", "no bytes_per_second"),
        ("flops: 1\nbytes_per_second: 1\nprice: 3", "unknown price"),
        ("flops: fast\nbytes_per_second: 1", "numbers"),
        ("flops: 0\nbytes_per_second: 1", "above 0"),
        ("- 1", "no fields"),
        ("{", "no hardware profile"),
    ],
)
def test_a_file_that_describes_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        hardware.profile(str(tmp_path / "card.yaml"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no hardware profile"):
        hardware.profile(str(tmp_path / "absent.yaml"))
