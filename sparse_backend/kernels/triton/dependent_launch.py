"""Programmatic dependent launch: a kernel comes onto the GPU while the one before it still runs, from Hopper on.

A step launches a handful of short kernels in every layer, which at small batches take about as long to begin as to run.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

HOPPER = (9, 0)  # the compute capability of the first GPUs that can


def dependent_launch(device: torch.device) -> dict[str, bool]:
    """Options of a launch of a kernel that begins with `await_kernel_before`."""
    return {"PDL": True, "launch_pdl": True} if capability(device) >= HOPPER else {"PDL": False}


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of an NVIDIA GPU; (0, 0) of anything else."""
    nvidia = device.type == "cuda" and torch.version.cuda is not None
    return torch.cuda.get_device_capability(device) if nvidia else (0, 0)


@triton.jit
def await_kernel_before(PDL: tl.constexpr):
    """Lets the next kernel come at once, and waits for the end of the one before, whose writes are then to be seen.

    Every kernel does that before it reads or writes anything. So the end of the kernel before is the end of all before
    that one too, and none of them still reads what this one writes.
    """
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
