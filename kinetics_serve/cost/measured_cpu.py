"""This machine's CPU as a hardware profile: measured in a few seconds, and cached for the next time.

It is measured as an engine uses it: products of torch, and the bytes of keys and values that vLLM's own attention
kernel gets through, in bf16 where the CPU has AVX-512 and in fp32 elsewhere, on the threads that vLLM computes with,
which leave one core to its front-end. That is done in a process of its own, because nothing here imports torch. Without
torch or vLLM there is no engine on this machine, and the rates are numpy's: fp32 products, and plain reads.
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

from kinetics_serve.container import memory_limit_bytes
from kinetics_serve.cost.hardware_profile import HardwareProfile

MATRIX = 2048  # rows: large enough for full GEMM speed, 17 GFLOP
READ_BYTES = 1 << 30  # several times a last-level cache
CHUNK_BYTES = 1 << 26
FILL_SECONDS = 1.5  # fresh pages can be slow in a virtual machine: read what was filled by then
REPEATS = 5
REPEAT_SECONDS = 0.7  # no further repeat after this
ENGINE_SECONDS = 60.0  # importing torch takes two, on a slow disk more
ENGINE_RATES = """
import importlib.util, sys, time, torch

torch.set_num_threads(int(sys.argv[1]))

def best(work):
    seconds, deadline = [], time.perf_counter() + 1.0
    while len(seconds) < 2 or (len(seconds) < 6 and time.perf_counter() < deadline):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)

dtype = torch.bfloat16 if torch.cpu._is_avx512_supported() else torch.float32
rows = 128  # doubled until a product takes long enough to measure
while True:
    matrix = torch.ones(rows, rows, dtype=dtype)
    seconds = best(lambda: matrix @ matrix)
    if seconds > 0.02 or rows == 2048:
        break
    rows *= 2
print(2 * rows**3 / seconds)

cpu = torch.cpu
name = "_C" if cpu._is_avx512_bf16_supported() else "_C_AVX512" if cpu._is_avx512_supported() else "_C_AVX2"
(folder,) = importlib.util.find_spec("vllm").submodule_search_locations
torch.ops.load_library(f"{folder}/{name}.abi3.so")
ops, scale = torch.ops._C, 0.125
batch, context, kv_heads, group, size, block = 4, 4096, 8, 2, 64, 128  # 34 million numbers
cache = torch.zeros(batch * context // block, kv_heads, 2 * block, size, dtype=dtype)
keys, values = cache.chunk(2, 2)
query = torch.zeros(batch, kv_heads * group, size, dtype=dtype)
output, starts = torch.empty_like(query), torch.arange(batch + 1, dtype=torch.int32)
lengths = torch.full((batch,), context, dtype=torch.int32)
table = torch.arange(len(cache), dtype=torch.int32).view(batch, -1)
plan = ops.get_scheduler_metadata(
    batch, kv_heads * group, kv_heads, size, lengths, dtype, starts, True, -1, "vec", True, None, "auto"
)
seconds = best(
    lambda: ops.cpu_attention_with_kv_cache(
        query, keys, values, output, starts, lengths, scale, True, None, -1, table, 0.0, plan, None, None, 1.0, 1.0,
        "auto",
    )
)
print(cache.nbytes / seconds)
"""
METHOD = "an engine's threads, dtype and KV cache"  # profiles that were measured in another way are measured again


def cached_cpu() -> HardwareProfile:
    """The cached profile of this CPU, measured now if there is none yet or it is another CPU's."""
    path = _cache_file()
    cpu = cpu_name()
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        if (cached["cpu"], cached["method"]) == (cpu, METHOD):
            flops, bandwidth = float(cached["flops"]), float(cached["bytes_per_second"])
            return HardwareProfile("cpu", flops, bandwidth, str(cached["source"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache, or one that is not ours to read: measure
    return remeasured_cpu()


def remeasured_cpu() -> HardwareProfile:
    """Measured now, and cached instead of what was."""
    measured = measure_cpu()
    content = {
        "cpu": cpu_name(),
        "method": METHOD,
        "flops": measured.flops,
        "bytes_per_second": measured.bytes_per_second,
    }
    _write(_cache_file(), content | {"source": measured.source})
    return measured


def measure_cpu() -> HardwareProfile:
    """Measures GEMM FLOPs and bytes read per second, the best of several."""
    rates = _engine_rates()
    flops, gemm = (rates[0], "GEMM of torch") if rates else (_numpy_flops(), "fp32 GEMM of numpy")
    moved, reads = (rates[1], "vLLM's attention") if len(rates) > 1 else (_read_bandwidth(), "plain reads")
    return HardwareProfile("cpu", flops, moved, f"measured, {gemm}, {reads}: {cpu_name()}")


def cpu_name() -> str:
    """The CPU's model name and the number of cores that this process may use."""
    return f"{_model_name()}, {_cores()} cores"


def engine_threads() -> int:
    """Threads that vLLM computes with on this CPU: it leaves one core to its front-end."""
    return max(_cores() - 1, 1)


def _engine_rates() -> list[float]:
    """FLOPs and bytes per second; the first alone without vLLM, nothing without a torch that works."""
    if find_spec("torch") is None:
        return []
    command = [sys.executable, "-c", ENGINE_RATES, str(engine_threads())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ENGINE_SECONDS, check=False)
        return [float(line) for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


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
    if (container := memory_limit_bytes()) is not None:
        limit = min(limit, container // 4)
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        limit = min(limit, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4)
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
