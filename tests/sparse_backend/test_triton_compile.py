"""No GPU is needed to compile for one: every kernel becomes machine code for an A100 and an H100."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

# In a process of its own, since this one imported the kernels for the interpreter.
COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import mangle_type
from sparse_backend.kernels import Heads, Softmax
from sparse_backend.kernels.triton import attention, decode, layout, selection, summaries, update_summaries
from sparse_backend.selection import get_selector

launches = []

class Recorded:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return lambda *args, **options: launches.append((self.kernel, args, options))

for module, name in (
    (summaries, "_update"),
    (selection, "_score"),
    (selection, "_select"),
    (attention, "_attend"),
    (attention, "_combine"),
):
    setattr(module, name, Recorded(getattr(module, name)))

heads = Heads(8, QUERIES, 128, PAGE_SIZE, torch.bfloat16, get_selector("SELECTOR"), 16, 64)
share = layout.tile_bytes_per_token(heads) // 2
cache, tiles = layout.split_blocks(torch.zeros(2, 8, 128, 256 + share, dtype=torch.bfloat16), heads)
zeros = lambda *shape: torch.zeros(shape, dtype=torch.int32)
step = layout.DecodeStep(zeros(5), zeros(4), zeros(4, 1024), zeros(4))
query = torch.zeros(4, 8 * QUERIES, 128, dtype=torch.bfloat16)
softmax = Softmax(0.1, SOFT_CAP, torch.zeros(8 * QUERIES))
work = layout.Workspace.allocate(heads, 4, 131072, 131072, torch.device("cpu"))
update_summaries(heads, step, cache, tiles, 1)
decode(heads, step, query, cache, tiles, query.clone(), softmax, work)
assert len(launches) == 5
for kernel, args, options in launches:
    settings = {name: options.pop(name) for name in ("num_warps", "num_stages") if name in options}
    signature, constants = dict.fromkeys(options, "constexpr"), dict(options)
    for name, value in zip(kernel.arg_names, args):
        signature[name] = mangle_type(value) if not isinstance(value, int) or value != 1 else "constexpr"
        if signature[name] == "constexpr":
            constants[name] = value
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=settings)
    assert compiled.asm["cubin"]
    print(kernel.__name__, compiled.metadata.shared)
"""


@pytest.mark.parametrize(
    ("capability", "queries", "page_size", "selector"),
    [(80, 2, 16, "low_rank"), (90, 8, 32, "low_rank"), (90, 4, 16, "quest")],
)
def test_the_kernels_compile_for_a_gpu(capability: int, queries: int, page_size: int, selector: str) -> None:
    code = COMPILE.replace("CAPABILITY", str(capability)).replace("QUERIES", str(queries)).replace("SELECTOR", selector)
    code = code.replace("PAGE_SIZE", str(page_size)).replace("SOFT_CAP", "50.0" if selector == "quest" else "0.0")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shared = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("_")}
    assert set(shared) == {"_update", "_score", "_select", "_attend", "_combine"}
    assert max(shared.values()) <= 99 * 1024  # what the smallest of today's GPUs gives a program
