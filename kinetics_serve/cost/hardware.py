"""The hardware that work is priced for: known GPUs, and whatever this machine has."""

from __future__ import annotations

import re
import shutil
import subprocess

from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.measured_cpu import cached_cpu, remeasured_cpu

__all__ = ["GPUS", "HardwareProfile", "cached_cpu", "detect", "gpu_name", "profile", "remeasured_cpu"]

# Dense bf16 and the SXM form factor, but for the B200: the paper's 562.5 is its rate *with* structured
# sparsity.
GPUS = {
    profile.name: profile
    for profile in (
        HardwareProfile(
            "b200",
            4.5e15,
            8e12,
            "NVIDIA HGX B200 datasheet: bf16 with structured sparsity, HBM3e; the paper's 562.5",
        ),
        HardwareProfile("h200", 989.5e12, 4.8e12, "NVIDIA H200 SXM datasheet: dense bf16, HBM3e"),
        HardwareProfile("h100", 989.5e12, 3.35e12, "NVIDIA H100 SXM datasheet: dense bf16, HBM3"),
        HardwareProfile("a100", 312e12, 2.039e12, "NVIDIA A100 80GB SXM datasheet: dense bf16, HBM2e"),
        HardwareProfile("l40s", 362.05e12, 864e9, "NVIDIA L40S datasheet: dense bf16, GDDR6"),
    )
}


def profile(name: str) -> HardwareProfile:
    """The profile called ``name``: b200, h200, h100, a100, l40s, or cpu, which is measured once and cached.

    Raises ValueError for another name.
    """
    if name == "cpu":
        return cached_cpu()
    if name not in GPUS:
        raise ValueError(f"unknown hardware {name!r}; expected one of {', '.join([*GPUS, 'cpu'])}")
    return GPUS[name]


def detect() -> HardwareProfile:
    """The profile of this machine's first GPU as nvidia-smi names it, or of its CPU if it has none.

    A GPU's PCIe and NVL forms get the profile of its SXM form. Raises ValueError for a GPU without a profile.
    """
    gpu = gpu_name()
    if gpu is None:
        return cached_cpu()
    for name, known in GPUS.items():
        if re.search(rf"\b{name}\b", gpu, re.IGNORECASE):
            return known
    raise ValueError(f"no hardware profile for GPU {gpu!r}; name the nearest of {', '.join(GPUS)} instead")


def gpu_name() -> str | None:
    """The first GPU's name by nvidia-smi; None without nvidia-smi or a GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = answer.stdout.strip().splitlines()
    return names[0].strip() if names else None
