# ruff: noqa: E501  (a table: a row is a line)
"""Known accelerators. All rates are dense ones (no structured sparsity), of one GPU, and of the SXM form factor where a
name says no other; a published rate with sparsity is halved. fp4 is NVFP4 or MXFP4."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kinetics_serve.cost.hardware_profile import HardwareProfile

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Known:
    """A profile, and what its driver calls such a device (a regular expression; None: by our name only)."""

    profile: HardwareProfile
    device: str | None


def _known(
    name: str, device: str | None, bf16: float, fp8: float | None, fp4: float | None, gigabytes: float, source: str
) -> Known:
    """Rates in TFLOP/s and GB/s."""
    wide = fp8 * TERA if fp8 is not None else None
    narrow = fp4 * TERA if fp4 is not None else None
    return Known(HardwareProfile(name, bf16 * TERA, gigabytes * GIGA, source, wide, narrow), device)


# fmt: off
KNOWN = (
    #      name             what the driver calls it             bf16     fp8     fp4     GB/s   source
    _known("b200",          r"\bB200\b",                         2250,    4500,   9000,   8000,  "NVIDIA HGX B200 datasheet"),
    _known("paper-b200",    None,                                4500,    None,   None,   8000,  "Kinetics, arXiv 2506.05333: a B200's bf16 with structured sparsity, 562.5 FLOPs per byte"),
    _known("gb200",         r"\bGB200\b",                        2500,    5000,   10000,  8000,  "NVIDIA GB200 NVL72 datasheet, one GPU"),
    _known("b300",          r"\bB300\b",                         2250,    4500,   13500,  8000,  "NVIDIA HGX B300 datasheet"),
    _known("h200",          r"\bH200(?! NVL)\b",                 989.5,   1979,   None,   4800,  "NVIDIA H200 SXM datasheet"),
    _known("h100",          r"\bH100.*HBM3$|\bH100-SXM",         989.5,   1979,   None,   3350,  "NVIDIA H100 SXM datasheet"),
    _known("h100-pcie",     r"\bH100.*PCIe",                     756.5,   1513,   None,   2000,  "NVIDIA H100 PCIe datasheet"),
    _known("h100-nvl",      r"\bH100 NVL\b",                     835.5,   1671,   None,   3900,  "NVIDIA H100 NVL datasheet"),
    _known("h20",           r"\bH20\b(?!-)",                     148,     296,    None,   4000,  "NVIDIA H20 datasheet, as its vendors publish it"),
    _known("gh200",         r"\bGH200 480GB\b",                  989.5,   1979,   None,   4000,  "NVIDIA GH200 datasheet, 96 GB of HBM3"),
    _known("gh200-144",     r"\bGH200 144G",                     989.5,   1979,   None,   4900,  "NVIDIA GH200 datasheet, 144 GB of HBM3e"),
    _known("a100",          r"\bA100-SXM.*-80GB",                312,     None,   None,   2039,  "NVIDIA A100 datasheet, 80 GB SXM"),
    _known("a100-40",       r"\bA100-(SXM|PG5).*-40GB|\bA100-PCIE-40GB", 312, None, None, 1555,  "NVIDIA A100 datasheet, 40 GB SXM and PCIe"),
    _known("a100-pcie",     r"\bA100 80GB PCIe|\bA100-PCIE-80GB", 312,    None,   None,   1935,  "NVIDIA A100 datasheet, 80 GB PCIe"),
    _known("l4",            r"\bL4\b",                           121,     242.5,  None,   300,   "NVIDIA L4 datasheet"),
    _known("l40s",          r"\bL40S\b",                         362.05,  733,    None,   864,   "NVIDIA L40S datasheet"),
    _known("a10",           r"\bA10\b",                          125,     None,   None,   600,   "NVIDIA A10 datasheet"),
    _known("rtx4090",       r"\bRTX 4090\b(?! (D|Laptop))",      165.2,   330.3,  None,   1008,  "NVIDIA Ada architecture whitepaper, accumulating in fp32"),
    _known("rtx5090",       r"\bRTX 5090\b(?! (D|Laptop))",      209.5,   419,    1676,   1792,  "NVIDIA RTX Blackwell architecture whitepaper, accumulating in fp32"),
    _known("pro6000",       r"\bRTX PRO 6000 Blackwell Workstation", 503.8, 1007.6, 2015.2, 1792, "NVIDIA RTX PRO Blackwell architecture whitepaper, Workstation Edition"),
    _known("pro6000-server", r"\bRTX PRO 6000 Blackwell Server", 503.8,   1007.6, 2015.2, 1597,  "NVIDIA RTX PRO 6000 Server Edition datasheet"),
    _known("gb10",          r"\bGB10\b",                         125,     250,    500,    273,   "NVIDIA DGX Spark datasheet: 1 PFLOP/s of sparse fp4; the rest by Blackwell's ratios of 2"),
    _known("mi300x",        r"\bMI300X\b",                       1307.4,  2614.9, None,   5300,  "AMD Instinct MI300X datasheet"),
    _known("mi325x",        r"\bMI325X\b",                       1307.4,  2614.9, None,   6000,  "AMD Instinct MI325X datasheet"),
    _known("mi355x",        r"\bMI355X\b",                       2516.6,  5033.2, 10066.3, 8000, "AMD Instinct MI355X datasheet"),
    _known("gaudi3",        r"\bHL-325L?\b|\bGaudi ?3\b",        1835,    1835,   None,   3700,  "Intel Gaudi 3 HL-325L product brief"),
    _known("tpu-v5e",       r"\bv5(litepod|e)\b",                197,     None,   None,   819,   "Google Cloud TPU v5e documentation"),
    _known("tpu-v6e",       r"\bv6e\b",                          918,     None,   None,   1640,  "Google Cloud TPU v6e documentation"),
)
# fmt: on

PROFILES = {known.profile.name: known.profile for known in KNOWN}


def by_device_name(device: str) -> HardwareProfile:
    """The profile of a device by what its driver calls it. Raises ValueError for one that is not known."""
    for known in KNOWN:
        if known.device is not None and re.search(known.device, device, re.IGNORECASE):
            return known.profile
    raise ValueError(
        f"no hardware profile for {device!r}: name the nearest of {', '.join(PROFILES)} with --hardware, or a file "
        "of your own"
    )
