"""How the embedded vLLM is started: its command line and its environment."""

import contextlib
import os
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from kinetics_serve.container import memory_limit_bytes

# What `python -m vllm.entrypoints.openai.api_server` runs too, less a deprecation warning. Not `vllm serve`:
# with the CPU build it ends at once, because it asks for the metadata of a distribution named vllm.
VLLM_SERVER = ("-m", "vllm.entrypoints.launchers.api_server.entry")

GIB = 1 << 30

FEW_CORES = 4


def engine_command(python: str, model: str, served_name: str, port: int, engine_args: Sequence[str]) -> tuple[str, ...]:
    ours = ("--model", model, "--served-model-name", served_name, "--host", "127.0.0.1", "--port", str(port))
    defaults = () if has_cuda_gpu() else cpu_defaults(engine_args, os.environ)
    # cached_tokens in the usage: what the prefix cache saved is not charged.
    return (python, *VLLM_SERVER, *ours, "--enable-prompt-tokens-details", *defaults, *engine_args)


def multiplies_bf16() -> bool:
    """Whether this machine's CPU has what torch multiplies bf16 with. Raises nothing: an unknown CPU is taken to."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return platform.machine() != "x86_64" or "avx512f" in flags


def kv_element_bytes(engine_args: Sequence[str]) -> int | None:
    """Bytes of an element of the KV cache, where that is not the checkpoint's own: fp32 has 4."""
    options = [*(() if has_cuda_gpu() else cpu_defaults(engine_args, os.environ)), *engine_args]
    named = [option.replace("_", "-").partition("=") for option in options]
    pairs = zip(named, [*options[1:], ""], strict=True)
    stated = [value or following for (name, _, value), following in pairs if name == "--dtype"]
    return 4 if stated and stated[-1] in ("float", "float32") else None


def cpu_defaults(engine_args: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """vLLM options for a machine without a GPU, less those that the user has decided already."""
    named = {argument.partition("=")[0].replace("_", "-") for argument in engine_args if argument.startswith("-")}
    if "--config" in named:  # a file of options: ours would win over it
        return ()
    options: list[str] = []

    # Compiling adds more than a minute to a start, and the bundled model decoded no faster for it.
    if not named & {
        "--enforce-eager",
        "--no-enforce-eager",
        "--compilation-config",
        "-cc",
        "--optimization-level",
    }:
        options += ["--enforce-eager"]

    # vLLM would take 92 % of the machine's memory, and refuse to start where less than that is free.
    memory_options = {"--kv-cache-memory-bytes", "--gpu-memory-utilization"}
    if not named & memory_options and not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        options += ["--kv-cache-memory-bytes", str(kv_cache_bytes(available_memory_bytes()))]
        # So that a model with a long context starts in a small cache: vLLM shortens the context to what fits.
        if "--max-model-len" not in named:
            options += ["--max-model-len", "auto"]

    # Without AVX-512 torch multiplies bf16 a number at a time, many times slower than fp32.
    if "--dtype" not in named and not multiplies_bf16():
        options += ["--dtype", "float32"]

    # vLLM's 256 suit a GPU. On a CPU a step's time grows with the batch: more only makes everybody wait.
    if "--max-num-seqs" not in named:
        options += ["--max-num-seqs", "64"]

    # In vLLM 0.32 a seeded request whose prefill is split over steps ends a CPU engine: it rewinds the request's
    # random generator by an offset, which PyTorch's CPU generator does not have. So that nobody's seed can do
    # that, a prompt is prefilled whole.
    if not named & {"--enable-chunked-prefill", "--no-enable-chunked-prefill", "--max-num-batched-tokens"}:
        options += ["--no-enable-chunked-prefill"]
    return tuple(options)


def kv_cache_bytes(available_bytes: int) -> int:
    """A quarter of the free memory, in whole GiB from 1 to 32: vLLM touches all of it at the start."""
    return max(1, min(32, available_bytes // 4 // GIB)) * GIB


def available_memory_bytes() -> int:
    """Free memory and what the page cache can give back; with NUMA, of the first node: vLLM binds to it. In a container
    no more than its limit."""
    for path in (Path("/sys/devices/system/node/node0/meminfo"), Path("/proc/meminfo")):
        with contextlib.suppress(OSError):
            kib = {name: int(value) for name, value in re.findall(r"(\S+):\s+(\d+) kB", path.read_text())}
            free = 1024 * sum(kib.get(name, 0) for name in ("MemFree", "Active(file)", "Inactive(file)"))
            return min(free, memory_limit_bytes() or free)
    return 4 * GIB  # neither Linux nor known: enough for the smallest cache


def engine_environment(model: str, engine_args: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The engine's environment: ours, plus what is not set yet of the following."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}  # an embedded engine reports to nobody
    if Path(model).is_dir() and not any("tokenizer" in argument for argument in engine_args):
        defaults["HF_HUB_OFFLINE"] = "1"  # all files are there; vLLM would ask the hub about them nonetheless
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores <= FEW_CORES and not has_cuda_gpu() and "VLLM_CPU_OMP_THREADS_BIND" not in environment:
        # vLLM pins its threads to all cores but one. With few cores it then waits for whatever else runs on them
        # while another is idle: leave that to the kernel. Without pinning it takes one thread unless told.
        defaults |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(cores)}
    return {**defaults, **environment}


def has_cuda_gpu() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and (
        Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    )
