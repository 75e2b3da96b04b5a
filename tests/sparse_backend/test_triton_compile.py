"""No GPU is needed to compile for one: every kernel becomes machine code for an A100, an H100 and a B200."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ALL = {"_plan", "_compare", "_bundle", "_update", "_score", "_score_shared", "_select", "_attend", "_combine"}

# What the kernels of an H100 may take, for heads of Qwen3-8B: registers, of which a multiprocessor has 65,536, and
# instructions of a warp, that the compiler's next version may change a little. Triton 3.9.
CEILINGS = {
    "_plan": (32, 200),
    "_update": (255, 5900),
    "_compare": (128, 650),
    "_bundle": (128, 1300),
    "_score": (128, 1850),
    "_score_shared": (255, 4800),
    "_select": (128, 10300),
    "_attend": (128, 1700),
    "_combine": (64, 450),
}
SPILLED = {
    "_select": 128
}  # bytes of a thread, in its variant for the longest requests: two programs a multiprocessor pay


def job(**changes: Any) -> dict[str, Any]:
    """In a process of its own, since this one imported the kernels for the interpreter."""
    settings = {
        "capability": 90,
        "queries": 4,
        "page_size": 16,
        "selector": "low_rank",
        "soft_cap": 0.0,
        "sinks": False,
        "context": 131072,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sparse_backend.compiling", json.dumps(settings | changes)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    return result


@pytest.mark.parametrize(
    "changes",
    [
        {"capability": 80, "queries": 2, "sinks": True},
        {"capability": 90, "queries": 8, "page_size": 32},
        {"capability": 100, "selector": "quest", "soft_cap": 50.0},
        {"capability": 80, "page_size": 64},
        {"capability": 90, "context": 262144},
    ],
    ids=["sm_80", "sm_90", "sm_100", "large pages", "long contexts"],
)
def test_the_kernels_compile_for_a_gpu(changes: dict[str, Any]) -> None:
    kernels = job(**changes)
    assert set(kernels) == ALL
    for name, takes in kernels.items():
        assert takes["spilled"] <= SPILLED.get(name, 16), name
        assert takes["shared"] <= 99 * 1024, name  # what the smallest of today's GPUs gives a program
        # Where a kernel comes before the one before it has ended, it reads and writes nothing until that has.
        assert takes["before_wait"] == (0 if changes["capability"] >= 90 else None), name


def test_the_kernels_take_no_more_registers_and_instructions_than_they_did() -> None:
    for name, takes in job().items():
        assert takes["registers"] <= CEILINGS[name][0], name
        assert takes["instructions"] <= CEILINGS[name][1], name
        assert takes["spilled"] <= SPILLED.get(name, 0), name


def test_what_is_compiled_at_load_serves_batches_of_every_size() -> None:
    """Also halves of batches, whose rows begin anywhere in the engine's buffers, and batches that go in waves."""
    variants = job(batches=130)
    assert set(variants) == ALL
    assert {name: len(keys) for name, keys in variants.items()} == dict.fromkeys(ALL, 1)
