"""Builds, loads and calls the C++ kernels.

The source is compiled once for the machine it runs on and kept in a cache folder, keyed by source, compiler flags and
CPU. Plain ctypes: no build takes longer than a few seconds, and nothing ties the result to a torch version.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache as memoize
from pathlib import Path

import torch

from sparse_backend import constants
from sparse_backend.kernels.batch import DecodeBatch, Heads, Softmax
from sparse_backend.selection import BlockMean, Exact, LowRank, Quest, Selector

SOURCE = Path(__file__).parent / "cpu" / "sparse_attention.cpp"
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-shared", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno")
DTYPES = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
SELECTORS: dict[type[Selector], int] = {Exact: 0, BlockMean: 1, Quest: 2, LowRank: 3}


class BuildError(RuntimeError):
    """The kernels could not be compiled or loaded."""


class Step(ctypes.Structure):
    """`struct Step` of the source, field by field."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("dtype", "selector", "kv_heads", "num_queries_per_kv", "head_size")),
        *((name, ctypes.c_int32) for name in ("page_size", "kernel_block_tokens", "block_stride", "block_content")),
        *((name, ctypes.c_int32) for name in ("sink_tokens", "local_tokens", "num_requests", "table_stride")),
        ("tile_stride", ctypes.c_int64),
        *((name, ctypes.c_float) for name in ("scale", "soft_cap")),
        ("max_pages", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("requests", "token", "key_tokens", "value_tokens")),
        *((name, ctypes.c_void_p) for name in ("seq_lens", "block_table")),
        ("sinks", ctypes.c_void_p),
        ("query_stride", ctypes.c_int64),
        ("output_stride", ctypes.c_int64),
    ]


def cache_folder() -> Path:
    """Where compiled kernels are kept: $SPARSE_BACKEND_CACHE, else the user's cache folder. Raises BuildError."""
    given = os.environ.get("SPARSE_BACKEND_CACHE")
    if given:
        return Path(given)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparse_backend"
    except RuntimeError as error:  # a container's user often has none
        raise BuildError("this user has no home folder: set SPARSE_BACKEND_CACHE.") from error


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(line for line in dict.fromkeys(lines) if line.startswith(("model name", "flags", "Features")))


def build(architecture: str = "native") -> Path:
    """Compiles the kernels for `-march=architecture` unless that is done already. Raises BuildError."""
    asked = os.environ.get("CXX", "").strip() or "g++"
    command, *options = asked.split()  # CXX may be `ccache g++`
    compiler = shutil.which(command)
    if compiler is None:
        raise BuildError(f"no C++ compiler: there is no {asked}. Install g++ or point CXX to one.")
    flags = (*options, *FLAGS, f"-march={architecture}")
    try:
        sources = [file.read_text() for file in sorted(SOURCE.parent.iterdir()) if file.suffix in (".h", ".cpp")]
    except OSError as error:
        raise BuildError(f"cannot read the sources of the kernels: {error}; install kinetics-serve again.") from error
    key = hashlib.sha256("\0".join([*sources, compiler, *flags, _cpu()]).encode()).hexdigest()[:16]
    target = cache_folder() / f"sparse_attention-{key}.so"
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            fresh = Path(folder) / target.name
            subprocess.run(
                [compiler, *flags, str(SOURCE), "-o", str(fresh)], check=True, capture_output=True, text=True
            )
            fresh.replace(target)  # atomic: several workers may build at once
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{compiler} failed: {error.stderr.strip()[-500:]}") from error
    except OSError as error:
        raise BuildError(f"cannot write to {cache_folder()}: {error}; set SPARSE_BACKEND_CACHE.") from error
    return target


@memoize
def load(architecture: str = "native") -> ctypes.CDLL:
    """The compiled kernels. Raises BuildError."""
    try:
        library = ctypes.CDLL(str(build(architecture)))
    except OSError as error:
        raise BuildError(f"cannot load the compiled kernels: {error}") from error
    check_constants(library)
    pointer = ctypes.c_void_p
    step = ctypes.POINTER(Step)
    library.sparse_update_summaries.argtypes = [step, pointer, pointer, pointer, pointer, ctypes.c_int32]
    library.sparse_select_pages.argtypes = [step, pointer, pointer, pointer, pointer]
    library.sparse_decode.argtypes = [step, pointer, pointer, pointer, pointer]
    return library


def check_constants(library: ctypes.CDLL) -> None:
    """Raises BuildError where the compiled kernels were built around other numbers than the Python beside them."""
    names = "BLOCK RANK MEAN_TOKENS FINE POWER_ITERATIONS VECTOR HEAD_SIZE_MULTIPLE MAX_QUERIES_PER_KV MAX_HEAD_SIZE"
    expected = {name: getattr(constants, name) for name in names.split()}
    expected |= {selector.name: code for selector, code in SELECTORS.items()}
    expected |= {str(dtype).removeprefix("torch."): code for dtype, code in DTYPES.items()}
    expected["step_bytes"] = ctypes.sizeof(Step)
    if constant(library, "float16") < 0:
        del expected["float16"]  # see NativeKernels.check
    for name, value in expected.items():
        if constant(library, name) != value:
            raise BuildError(f"{name} is {value} in Python and {constant(library, name)} in the compiled kernels.")
    library.sparse_tile_bytes.restype = ctypes.c_int64
    for selector, code in SELECTORS.items():
        for head_size in (64, 80, 128):
            for page_size in constants.PAGE_SIZES:
                size = selector().tile_bytes(head_size, page_size)
                compiled = library.sparse_tile_bytes(code, head_size, page_size)
                if size != compiled:
                    raise BuildError(
                        f"A tile of {selector.name}, head size {head_size} and page size {page_size} has {size} bytes "
                        f"in Python and {compiled} in the compiled kernels."
                    )


def constant(library: ctypes.CDLL, name: str) -> int:
    """A constant of the compiled kernels; -1 where they have none of that name."""
    library.sparse_constant.restype = ctypes.c_int64
    value: int = library.sparse_constant(name.encode())
    return value


class NativeKernels:
    """`Kernels` in C++. Tensors given must be on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._prepared: tuple[DecodeBatch, Heads, Step] | None = None

    def check(self, heads: Heads) -> None:
        """See Kernels.check."""
        multiple = constants.HEAD_SIZE_MULTIPLE
        if heads.num_queries_per_kv > constants.MAX_QUERIES_PER_KV:
            raise ValueError(
                f"{heads.num_queries_per_kv} query heads share a KV head: the kernels take at most "
                f"{constants.MAX_QUERIES_PER_KV}"
            )
        if heads.head_size % multiple or heads.head_size > constants.MAX_HEAD_SIZE:
            raise ValueError(
                f"heads have {heads.head_size} dimensions: the kernels take multiples of {multiple} up to "
                f"{constants.MAX_HEAD_SIZE}"
            )
        if heads.dtype not in DTYPES:
            raise ValueError(f"keys and values are {heads.dtype}: the kernels read {', '.join(map(str, DTYPES))}")
        if heads.dtype == torch.float16 and constant(self._library, "float16") < 0:
            raise ValueError("the compiler that built the kernels has no 16-bit floats: use --dtype bfloat16")

    def update_summaries(
        self,
        heads: Heads,
        batch: DecodeBatch,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        requests: torch.Tensor,
        starts: torch.Tensor,
    ) -> None:
        """See Kernels.update_summaries."""
        step = self._step(heads, batch, tiles)
        self._call(
            self._library.sparse_update_summaries,
            step,
            cache.data_ptr(),
            tiles.data_ptr(),
            requests.data_ptr(),
            starts.data_ptr(),
            len(requests),
        )

    def select_pages(
        self, heads: Heads, batch: DecodeBatch, query: torch.Tensor, tiles: torch.Tensor, softmax: Softmax
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See Kernels.select_pages."""
        requests = len(batch.requests)
        width = batch.block_table.shape[1] * heads.kernel_block_tokens // heads.page_size
        table = torch.zeros(requests, heads.kv_heads, width, dtype=torch.int32)
        counts = torch.zeros(requests, heads.kv_heads, dtype=torch.int32)
        step = self._step(heads, batch, tiles, softmax)
        step.max_pages, step.query_stride = width, query.stride(0)
        self._call(
            self._library.sparse_select_pages,
            step,
            query.data_ptr(),
            tiles.data_ptr(),
            table.data_ptr(),
            counts.data_ptr(),
        )
        return table, counts

    def decode(
        self,
        heads: Heads,
        batch: DecodeBatch,
        query: torch.Tensor,
        cache: torch.Tensor,
        tiles: torch.Tensor,
        output: torch.Tensor,
        softmax: Softmax,
    ) -> None:
        """See Kernels.decode."""
        step = self._step(heads, batch, tiles, softmax)
        step.query_stride, step.output_stride = query.stride(0), output.stride(0)
        self._call(
            self._library.sparse_decode,
            step,
            query.data_ptr(),
            cache.data_ptr(),
            tiles.data_ptr(),
            output.data_ptr(),
        )

    def _call(self, function: Callable[..., int], step: Step, *arguments: int) -> None:
        if function(ctypes.byref(step), *arguments) != 0:
            raise RuntimeError("the kernels were called with heads that `check` refuses")

    def _step(self, heads: Heads, batch: DecodeBatch, tiles: torch.Tensor, softmax: Softmax | None = None) -> Step:
        """The step as the kernels want it, made once and used by every layer."""
        if self._prepared is None or self._prepared[0] is not batch or self._prepared[1] is not heads:
            self.check(heads)
            step = Step(
                dtype=DTYPES[heads.dtype],
                selector=SELECTORS[type(heads.selector)],
                kv_heads=heads.kv_heads,
                num_queries_per_kv=heads.num_queries_per_kv,
                head_size=heads.head_size,
                page_size=heads.page_size,
                kernel_block_tokens=heads.kernel_block_tokens,
                block_stride=heads.block_stride or 2**31 - 1,
                block_content=heads.block_content,
                sink_tokens=heads.sink_tokens,
                local_tokens=heads.local_tokens,
                num_requests=len(batch.requests),
                table_stride=batch.block_table.stride(0),
                requests=batch.requests.data_ptr(),
                token=batch.tokens.data_ptr(),
                key_tokens=batch.key_tokens.data_ptr(),
                value_tokens=batch.value_tokens.data_ptr(),
                seq_lens=batch.seq_lens.data_ptr(),
                block_table=batch.block_table.data_ptr(),
            )
            self._prepared = (batch, heads, step)
        step = self._prepared[2]
        step.tile_stride = tiles.stride(0) // heads.kv_heads
        if softmax is not None:
            step.scale, step.soft_cap, sinks = softmax.scale, softmax.soft_cap, softmax.sinks
            if sinks is not None and (sinks.dtype != torch.float32 or not sinks.is_contiguous()):
                raise TypeError(f"sinks are {sinks.dtype}: give contiguous float32")
            step.sinks = None if sinks is None else sinks.data_ptr()
        return step
