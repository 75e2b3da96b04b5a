"""Compiles the Triton kernels for a GPU without one: `python -m tests.sparse_backend.compiling`, with JSON in and out.

A program of its own, since a process that runs Triton's interpreter cannot compile.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import Heads, Softmax
from sparse_backend.kernels import triton as kernels
from sparse_backend.kernels.triton import attention, bundles, layout, plan, scoring, selection, summaries
from sparse_backend.kernels.triton.dependent_launch import HOPPER
from sparse_backend.selection import get_selector

KERNELS = {
    plan: ("_plan",),
    bundles: ("_compare", "_bundle"),
    summaries: ("_update",),
    scoring: ("_score", "_score_shared"),
    selection: ("_select",),
    attention: ("_attend", "_combine"),
}
# In machine code, `griddepcontrol.wait`, and what reads or writes global memory.
WAIT = "ACQBULK"
GLOBAL = re.compile(r"(LD|ST|LDG.*|STG.*|LDGSTS.*|ATOM.*|RED.*|UBLKCP.*)$|(LD|ST)\.")
SETTINGS = ("num_warps", "num_stages", "maxnreg", "launch_pdl")

launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []


class Recorded:
    """Stands in the place of a kernel and remembers its launches."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **options: launches.append((self.kernel, args, options))


class Engine:
    """What an engine's layers of one shape launch, on CPU tensors."""

    def __init__(self, queries: int, page_size: int, selector: str, soft_cap: float, sinks: bool, context: int) -> None:
        self.heads = Heads(8, queries, 128, page_size, torch.bfloat16, get_selector(selector), 16, 64)
        self.softmax = Softmax(0.1, soft_cap, torch.zeros(8 * queries) if sinks else None)
        share = kernels.tile_bytes_per_token(self.heads) // 2
        self.cache, self.tiles = layout.split_blocks(
            torch.zeros(2, 8, BLOCK, 2 * 128 + share, dtype=torch.bfloat16), self.heads
        )
        self.work = kernels.Workspace.allocate(self.heads, 256, context, context, torch.device("cpu"))

    def step(self, batch: int, offset: int = 0) -> None:
        """offset: at which row of the engine's buffers the batch begins, as half a batch does that overlaps another."""

        def rows(*shape: int) -> torch.Tensor:
            return torch.zeros(shape[0] + offset, *shape[1:], dtype=torch.int32)[offset:]

        step = kernels.DecodeStep(
            rows(batch + 1),
            rows(batch),
            rows(batch, 1024 + batch % 3),
            rows(batch),
            rows(batch, kernels.MEMBERS),
            rows(batch),
        )
        budgets, read, lens = torch.zeros(3, 512).int(), torch.zeros(2, 512).int(), torch.zeros(512).int()
        kernels.plan_step(step.query_start, step.seq_lens, budgets, read, lens, torch.zeros(512).int(), batch)
        kernels.bundle_requests(step, torch.zeros(512, kernels.MAX_WAVE).int(), self.heads.page_size)
        width = (8 * self.heads.num_queries_per_kv + 16) * 128
        query = torch.zeros(batch + offset, width + offset, dtype=torch.bfloat16)[offset:, : -2048 - offset]
        query = query.unflatten(1, (-1, 128))
        kernels.update_summaries(self.heads, step, self.cache, self.tiles, 1 + batch % 5)
        kernels.decode(self.heads, step, query, self.cache, self.tiles, query, self.softmax, self.work)


def specialisation(kernel: Any, args: tuple[Any, ...], options: dict[str, Any], target: GPUTarget) -> dict[str, Any]:
    """What Triton compiles a launch for: the type of each argument, and what it looks at beside it."""
    backend, result = make_backend(target), dict(options)
    for parameter, value in zip(kernel.params, args, strict=False):
        looked_at = not parameter.do_not_specialize, not parameter.do_not_specialize_on_alignment
        result[parameter.name] = native_specialize_impl(type(backend), value, False, *looked_at)
    return result


def compiled(kernel: Any, args: tuple[Any, ...], options: dict[str, Any], target: GPUTarget) -> dict[str, Any]:
    """Compiles a launch; what the machine code takes, and whether it waits for the kernel before: None if it never
    does, else how many of its accesses to global memory come before that."""
    if target.arch >= 10 * HOPPER[0]:
        options |= {"PDL": True, "launch_pdl": True}
    settings = {name: options.pop(name) for name in SETTINGS if name in options}
    signature: dict[str, str] = dict.fromkeys(options, "constexpr")
    constants, attributes = dict(options), {}
    special = specialisation(kernel, args, {}, target)
    for place, (name, value) in enumerate(zip(kernel.arg_names, args, strict=False)):
        signature[name], aligned = special[name]
        if signature[name] == "constexpr":
            constants[name] = value
        elif aligned == "D":
            attributes[place,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants, attributes)
    result = triton.compile(source, target=target, options=settings)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(result.asm["cubin"])
        usage, code = disassembled(cubin, "-res-usage"), disassembled(cubin, "-sass")
    found = {name: int(n) for name, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?([A-Z0-9_.]+)", code, re.MULTILINE)
    return {
        "registers": found["REG"],
        "spilled": found["STACK"] + found["LOCAL"],
        "shared": result.metadata.shared,
        "instructions": sum(name != "NOP" for name in instructions),
        "before_wait": before_wait(instructions),
    }


def before_wait(instructions: list[str]) -> int | None:
    if WAIT not in instructions:
        return None
    return sum(bool(GLOBAL.match(name)) for name in instructions[: instructions.index(WAIT)])


def disassembled(cubin: Path, option: str) -> str:
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return subprocess.run([tool, option, cubin], capture_output=True, text=True, check=True).stdout


def main(job: dict[str, Any]) -> dict[str, Any]:
    """`batches`: how many variants each kernel has over these; else what each takes when it is compiled."""
    for module, names in KERNELS.items():
        for name in names:
            setattr(module, name, Recorded(getattr(module, name)))
    target = GPUTarget("cuda", job["capability"], 32)
    engine = Engine(*(job[name] for name in ("queries", "page_size", "selector", "soft_cap", "sinks", "context")))
    if "batches" not in job:
        engine.step(4)
        return {k.__name__: compiled(k, args, options, target) for k, args, options in launches}
    kernels.warm_up(engine.heads, engine.softmax, engine.work)
    engine.step(1)
    for batch in range(1, job["batches"] + 1):
        engine.step(batch, offset=batch % 2)
    variants: dict[str, set[str]] = {}
    for kernel, args, options in launches:
        key = str(sorted(specialisation(kernel, args, options, target).items()))
        variants.setdefault(kernel.__name__, set()).add(key)
    return {name: sorted(keys) for name, keys in variants.items()}


if __name__ == "__main__":
    print("RESULT " + json.dumps(main(json.loads(sys.argv[1]))))
