"""The hardware that work is priced for: a known accelerator, one described in a file, or whatever this machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.measured_cpu import cached_cpu, remeasured_cpu
from kinetics_serve.cost.profiles import PROFILES, by_device_name

__all__ = [
    "GPUS",
    "HardwareProfile",
    "accelerator",
    "cached_cpu",
    "detect",
    "profile",
    "profile_of_file",
    "remeasured_cpu",
]

GPUS = PROFILES

TOOLS = (
    (("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"), re.compile(r"^(.*\S)", re.MULTILINE)),
    (("amd-smi", "static", "--asic"), re.compile(r"MARKET_NAME\W*: *(.*\S)", re.IGNORECASE)),
    (("hl-smi", "-Q", "name", "-f", "csv,noheader"), re.compile(r"^(.*\S)", re.MULTILINE)),
)
"""Commands of the vendors' management libraries (NVML, AMD SMI, Habana's), and where their output names a device."""

TPU_TYPE = "TPU_ACCELERATOR_TYPE"
"""Set on Google's TPU machines, such as v6e-8."""

DEVICE_FILES = ("nvidia0", "kfd", "accel0", "accel/accel0", "neuron0", "hl0")
"""Of accelerators' drivers, below /dev."""


def profile(name: str) -> HardwareProfile:
    """The profile called ``name``, that of a .yaml file, or cpu, which is measured once and cached.

    Raises ValueError for another name or a file that describes none.
    """
    if name == "cpu":
        return cached_cpu()
    if name.endswith((".yaml", ".yml")):
        return profile_of_file(Path(name))
    if name not in PROFILES:
        expected = ", ".join([*PROFILES, "cpu"])
        raise ValueError(f"unknown hardware {name!r}; expected one of {expected}, or a .yaml file")
    return PROFILES[name]


def profile_of_file(path: Path) -> HardwareProfile:
    """The profile that a YAML file describes: flops (dense bf16) and bytes_per_second, and where it likes name, source,
    fp8, fp4. Raises ValueError."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"no hardware profile in {path}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no fields: expected flops and bytes_per_second")
    rates = {key: content.pop(key) for key in ("flops", "bytes_per_second", "fp8", "fp4") if key in content}
    names = {"name": content.pop("name", path.stem), "source": content.pop("source", str(path))}
    missing = [key for key in ("flops", "bytes_per_second") if key not in rates]
    if content or missing:
        wrong = [*(f"unknown {key}" for key in content), *(f"no {key}" for key in missing)]
        raise ValueError(f"{path}: {', '.join(wrong)}; fields are name, flops, bytes_per_second, fp8, fp4, source")
    try:
        numbers = {key: float(value) for key, value in rates.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: rates are numbers: {error}") from error
    return HardwareProfile(**{key: str(value) for key, value in names.items()}, **numbers)  # type: ignore[arg-type]


def detect() -> HardwareProfile:
    """The profile of this machine's first accelerator, or of its CPU if it has none.

    Raises ValueError for an accelerator without a profile.
    """
    device = accelerator()
    return cached_cpu() if device is None else by_device_name(device)


def accelerator(devices: Path = Path("/dev")) -> str | None:
    """What the first accelerator's driver calls it; None without one. ``devices``: where device files are.

    Raises ValueError for one that a device file shows, and no tool names.
    """
    for command, pattern in TOOLS:
        found = pattern.search(_output(command))
        if found is not None:
            return found[1]
    if os.environ.get(TPU_TYPE):
        return os.environ[TPU_TYPE]
    present = [str(devices / file) for file in DEVICE_FILES if (devices / file).exists()]
    if present:
        tools = ", ".join(command[0] for command, _ in TOOLS)
        raise ValueError(
            f"an accelerator is here ({', '.join(present)}), but none of {tools} names it: name the nearest of "
            f"{', '.join(PROFILES)} with --hardware, or cpu where models run on the CPU"
        )
    return None


def _output(command: tuple[str, ...]) -> str:
    """What a command prints; nothing where it is not installed or fails."""
    program = shutil.which(command[0])
    if program is None:
        return ""
    try:
        return subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
