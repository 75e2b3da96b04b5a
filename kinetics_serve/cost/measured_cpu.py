"""This machine's CPU as a hardware profile: measured in a few seconds, and cached for the next time.

The FLOPs are those of the matrix products that vLLM runs: bf16 ones of torch, in a process of its own, because nothing
here imports torch. Without torch there is no engine on this machine either, and they are numpy's, in fp32: a CPU with
bf16 instructions does a few times more.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from kinetics_serve.cost.hardware_profile import HardwareProfile

MATRIX = 2048  # rows: large enough for full GEMM speed, 17 GFLOP
READ_BYTES = 1 << 30  # several times a last-level cache
CHUNK_BYTES = 1 << 26
FILL_SECONDS = 1.5  # fresh pages can be slow in a virtual machine: read what was filled by then
REPEATS = 5
REPEAT_SECONDS = 0.7  # no further repeat after this
TORCH_SECONDS = 60.0  # importing it takes two, on a slow disk more
TORCH_GEMM = f"""
import time, torch
matrix = torch.ones({MATRIX}, {MATRIX}, dtype=torch.bfloat16)
best = float("inf")
for _ in range({REPEATS} + 1):
    start = time.perf_counter()
    matrix @ matrix
    best = min(best, time.perf_counter() - start)
print(2 * {MATRIX}**3 / best)
"""


def cached_cpu() -> HardwareProfile:
    """The cached profile of this CPU, measured now if there is none yet or it is another CPU's."""
    path = _cache_file()
    cpu = cpu_name()
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        if cached["cpu"] == cpu:
            flops, bandwidth = float(cached["flops"]), float(cached["bytes_per_second"])
            return HardwareProfile("cpu", flops, bandwidth, str(cached["source"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or one that is not ours to read: measure
    return remeasured_cpu()


def remeasured_cpu() -> HardwareProfile:
    """Measured now, and cached instead of what was."""
    measured = measure_cpu()
    content = {"cpu": cpu_name(), "flops": measured.flops, "bytes_per_second": measured.bytes_per_second}
    _write(_cache_file(), content | {"source": measured.source})
    return measured


def measure_cpu() -> HardwareProfile:
    """Measures GEMM FLOPs and memory bytes read per second, on all cores, the best of several."""
    flops, gemm = _torch_flops(), "bf16 GEMM of torch"
    if flops is None:
        flops, gemm = _numpy_flops(), "fp32 GEMM of numpy"
    return HardwareProfile("cpu", flops, _read_bandwidth(), f"measured, {gemm}: {cpu_name()}")


def cpu_name() -> str:
    """The CPU's model name and the number of cores that this process may use."""
    return f"{_model_name()}, {_cores()} cores"


def _torch_flops() -> float | None:
    """None where there is no torch that works."""
    if find_spec("torch") is None:
        return None
    command = [sys.executable, "-c", TORCH_GEMM]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_SECONDS, check=True)
        return float(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _numpy_flops() -> float:
    import numpy as np

    matrix = np.ones((MATRIX, MATRIX), dtype=np.float32)
    product = np.empty_like(matrix)
    return 2 * MATRIX**3 / _best_seconds(lambda: np.matmul(matrix, matrix, out=product))


def _read_bandwidth() -> float:
    import numpy as np

    with ThreadPoolExecutor(_cores()) as pool:
        deadline = time.monotonic() + FILL_SECONDS

        def fill(_: int) -> np.ndarray | None:
            late = time.monotonic() > deadline
            return None if late else np.ones(CHUNK_BYTES // 4, dtype=np.float32)

        filled = pool.map(fill, range(max(_readable_bytes() // CHUNK_BYTES, 1)))
        chunks = [chunk for chunk in filled if chunk is not None]
        seconds = _best_seconds(lambda: list(pool.map(np.max, chunks)))
    return sum(chunk.nbytes for chunk in chunks) / seconds


def _readable_bytes() -> int:
    """READ_BYTES, or a quarter of the memory that is free."""
    limit = READ_BYTES
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        limit = min(limit, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
    with suppress(OSError, ValueError):  # a container's limit does not show in the machine's free memory
        limit = min(limit, int(Path("/sys/fs/cgroup/memory.max").read_text()) // 4)
    return limit


def _best_seconds(work: Callable[[], object]) -> float:
    best, deadline = float("inf"), time.monotonic() + REPEAT_SECONDS
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if time.monotonic() > deadline:
            break
    return best


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _model_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cache_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "kinetics-serve" / "hardware.json"


def _write(path: Path, content: dict[str, object]) -> None:
    """Replaces the file whole; without a writable cache the next process measures again."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content, indent=2), encoding="utf-8")
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
