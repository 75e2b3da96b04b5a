"""Sparse decode attention on a GPU: right against float64, then its time, kernel by kernel and as whole steps.

    benchmarks/gpu_session.sh [--json FILE] [--minutes 8] [--only SECTION ...]

Needs torch and Triton, not vLLM. Every row is written to the JSON file when it is measured; a second run goes on where
the first one ended. Steps are recorded as CUDA graphs and replayed over more layers' caches than the L2 cache holds.
One page in sixteen is completed in each step, and the kernels know nothing of the context: the launch, the block tables
and the workspace are those of `max_model_len`.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu_layers import SHAPES, Layers, read_only_stream
from sparse_backend.kernels.batch import Heads
from sparse_backend.kernels.triton import Workspace, attention, dependent_launch, layout, scoring, selection, summaries
from sparse_backend.selection import LowRank

NO_GPU = "No GPU here: this benchmark needs one that torch and Triton can use. Nothing was measured."
WORST_ERROR = 0.02  # relative, of a bfloat16 output against float64
BATCHES, CONTEXTS, BUDGETS = (1, 4, 32), (8192, 32768, 131072), (1024, 2048)
CACHE_BYTES = 2**30  # of keys and values that one measurement goes over at least
MOST_BYTES = 40 * 2**30  # that fit beside their copies on an 80 GB card
GRAPH_CONTEXT = 2048
OWN_TOKENS = 512  # of each sample, behind the prompt that all requests share
STEP_LAYERS = 36  # of Qwen3-8B
# Of each kernel: constants of its modules, and the values to try, all with all.
TUNABLES: dict[str, dict[tuple[Any, str], tuple[int, ...]]] = {
    "update": {(summaries, "NUMBERS"): (1024, 2048)},
    "score": {(scoring, "WARPS"): (1, 2), (scoring, "STAGES"): (2, 3), (scoring, "SCORE_PROGRAMS"): (4, 8)},
    "score shared": {(scoring, "SHARED_COLUMNS"): (16, 32), (scoring, "SHARED_PROGRAMS"): (2, 4, 8)},
    "choose": {(selection, "WARPS"): (4, 8), (selection, "REGISTERS"): (128, 255)},
    "attend": {
        (attention, "WARPS"): (2, 4),
        (attention, "TOKENS"): (32, 64),
        (attention, "MEANS"): (32, 64),
        (layout, "PROGRAMS_PER_SM"): (2, 4),
        (layout, "MEAN_PROGRAMS"): (1, 2),
    },
}
ROW_SECONDS, TOOL_SECONDS = 20, 120  # that a row may take, and one that runs another program
PROFILED = (
    "gpu__time_duration.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio",
    "smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",
)
Row = dict[str, Any]


def seconds(work: Callable[[], object], rounds: int = 20) -> float:
    """Median time of `work`, recorded once as a CUDA graph and replayed."""
    work()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times)


def heads_of(model: str) -> Heads:
    query_heads, kv_heads, head_size = SHAPES[model]
    return Heads(kv_heads, query_heads // kv_heads, head_size, 16, torch.bfloat16, LowRank(), 16, 64)


def layers_of(model: str, batch: int, context: int, max_model_len: int, device: torch.device) -> Layers:
    """Enough layers that nothing is found in the L2 cache, and no more than fit."""
    heads = heads_of(model)
    size = batch * context * heads.kv_heads * 2 * heads.head_size * heads.dtype.itemsize
    count = min(STEP_LAYERS, max(1, -(-CACHE_BYTES // size)), max(1, MOST_BYTES // size))
    return Layers(heads, count, batch, context, max_model_len, device)


def machine(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    def measured() -> Row:
        bytes_read, work = read_only_stream(CACHE_BYTES, device)
        return {
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
            "multiprocessors": layout.multiprocessors(device),
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "stream_bytes_per_second": bytes_read / seconds(work),
        }

    yield "machine", measured


def tests(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The project's own tests of the kernels, on the device."""

    def run() -> Row:
        files = [f"tests/sparse_backend/test_{name}.py" for name in ("triton_kernels", "plan", "bundles")]
        command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *files]
        if find_spec("xdist"):
            command += ["-n", "auto"]  # most of it is compiling
        environment = {**os.environ, "SPARSE_BACKEND_TEST_DEVICE": device.type}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TOOL_SECONDS - 10, check=False
        )
        return {"passed": done.returncode == 0, "output": done.stdout[-2000:]}

    yield "tests", run


def graphs(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """A graph that was recorded once gives what launches give, after lengths, tables and budgets changed.

    Half of the context is shared, for as long as the requests' lengths reach.
    """

    def compared(model: str) -> Row:
        longest = GRAPH_CONTEXT
        layers = layers_of(model, 4, longest, 4 * longest, device)
        layers.share(longest // 2)
        layers.steps = [layers.step_of(longest // 4)]
        step = layers.steps[0]
        layers.sparse_layer(0)
        replay: Callable[[], object] = partial(layers.sparse_layer, 0)
        if device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                layers.sparse_layer(0)
            replay = graph.replay
        errors = []
        for lens, budgets in (
            ([longest, longest - 5, longest // 3, 1], [12, 16, 0, 8]),
            ([longest // 2, longest - 1, longest - 3, longest], [12, 0, 16, 16]),
        ):
            step.seq_lens.copy_(torch.tensor(lens))
            step.page_budget.copy_(torch.tensor(budgets))
            step.block_table.copy_(step.block_table[torch.randperm(len(lens), device=device)])
            layers.bundle(step)
            layers.output.fill_(float("nan"))  # what is left alone must be what is dense
            replay()
            for row, budget in enumerate(budgets):
                written = not layers.output[row].isnan().any()
                if written != (budget > 0):
                    errors.append(1.0)
                elif budget:
                    errors.append(layers.error(step, row))
        return {"errors": errors, "worst": max(errors)}

    for model in SHAPES:
        yield f"graphs/{model}", partial(compared, model)


def kernels(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Each kernel's time and bandwidth, for Qwen3-8B's heads, and dense attention's on the same caches.

    Then the same where all requests are samples of one prompt, and how long finding that out takes in a step.
    """
    model = "Qwen3-8B"

    def times(layers: Layers, budget: int) -> Row:
        layers.plan(budget)
        layers.sparse()
        row: Row = {"seconds": {name: seconds(work) / layers.launches for name, work in layers.kernels()}}
        row["layer_seconds"] = seconds(layers.sparse) / layers.launches
        layers.sparse_layer(0)
        return {"error": layers.error(layers.steps[0], 0), **row}

    def measured(batch: int, context: int, max_model_len: int) -> Row:
        layers = layers_of(model, batch, context, max_model_len, device)
        dense = {name: seconds(work) / layers.launches for name, work in layers.dense_ways()}
        row: Row = {"dense_seconds": dense, "dense_bytes": layers.dense_bytes, "budgets": {}}
        for budget in BUDGETS:
            found = times(layers, budget)
            found["bytes_per_second"] = {
                name: layers.bytes_of(name, budget) / t for name, t in found["seconds"].items()
            }
            found["dense_over_sparse"] = min(dense.values()) / found["layer_seconds"]
            row["budgets"][budget] = found
        if batch > 1:
            layers.share(context - OWN_TOKENS)
            row["shared"] = shared = times(layers, BUDGETS[0])
            shared["unshared_over_shared"] = row["budgets"][BUDGETS[0]]["layer_seconds"] / shared["layer_seconds"]
            shared["bundle_seconds"] = seconds(partial(layers.bundle, layers.steps[0]))
        return row

    for batch in BATCHES:
        for context in CONTEXTS:
            for longest in sorted({context, max(CONTEXTS)}):
                name = f"kernels/{model} x{batch}, {context} of {longest}"
                yield name, partial(measured, batch, context, longest)


def step(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Attention of a whole step of 36 layers as one graph, also where every kernel begins after the one before."""

    def measured(batch: int, context: int) -> Row:
        layers = layers_of("Qwen3-8B", batch, context, max(CONTEXTS), device)
        layers.launches = STEP_LAYERS
        dense = {name: seconds(work) for name, work in layers.dense_ways()}
        layers.plan(BUDGETS[0])
        sparse = seconds(layers.sparse)
        with patch.object(dependent_launch, "HOPPER", (1000, 0)):
            in_turn = seconds(layers.sparse)
        ratios = {"dense_over_sparse": min(dense.values()) / sparse, "in_turn_over_sparse": in_turn / sparse}
        return {"dense_seconds": dense, "sparse_seconds": sparse, "in_turn_seconds": in_turn, **ratios}

    for batch in BATCHES:
        yield f"step/x{batch}, 32768", partial(measured, batch, CONTEXTS[1])


def sweep(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Each kernel's time with other values of its constants, at the ends of what is served."""

    def measured(layers_made: Callable[[], Layers], kernel: str, values: dict[tuple[Any, str], int]) -> Row:
        layers, before = layers_made(), {(module, name): getattr(module, name) for module, name in values}
        kernel, _, shared = kernel.partition(" ")
        layers.share(layers.context - OWN_TOKENS if shared else 0)
        for (module, name), value in values.items():
            setattr(module, name, value)
        try:
            layers.work = Workspace.allocate(layers.heads, layers.batch, layers.context, layers.context, device)
            layers.plan(BUDGETS[0])
            layers.sparse()
            return {
                "default": values == before,
                "seconds": seconds(dict(layers.kernels())[kernel], 10) / layers.launches,
            }
        finally:
            for (module, name), value in before.items():
                setattr(module, name, value)

    for batch in (BATCHES[0], BATCHES[-1]):
        layers = cache(partial(layers_of, "Qwen3-8B", batch, CONTEXTS[1], CONTEXTS[1], device))
        for kernel, constants in TUNABLES.items():
            if kernel == "score shared" and batch == 1:
                continue
            for values in product(*constants.values()):
                of = dict(zip(constants, values, strict=True))
                name = ", ".join(f"{constant} {value}" for (_, constant), value in of.items())
                yield f"sweep/x{batch} {kernel}: {name}", partial(measured, layers, kernel, of)


def profile(device: torch.device) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Hardware counters of each kernel, where Nsight Compute is there and may read them."""

    def measured() -> Row:
        tool = shutil.which("ncu")
        if tool is None:
            return {"absent": "ncu is not installed"}
        command = [tool, "--csv", "--clock-control", "none", "--metrics", ",".join(PROFILED)]
        command += ["-k", "regex:_update|_score|_select|_attend|_combine"]
        command += [sys.executable, "-m", "benchmarks.attention_gpu", "--once"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS - 10, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
        found: Row = {}
        for line in csv.DictReader(lines):
            found.setdefault(line["Kernel Name"], {})[line["Metric Name"]] = line["Metric Value"]
        return found or {"absent": done.stderr[-500:]}

    yield "profile", measured


SECTIONS: dict[str, Callable[[torch.device], Iterator[tuple[str, Callable[[], Row]]]]] = {
    section.__name__: section for section in (machine, tests, graphs, kernels, step, profile, sweep)
}


def keep(rows: dict[str, Row], path: Path) -> None:
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(rows, indent=1) + "\n")
    fresh.replace(path)


def session(path: Path, chosen: list[str], minutes: float, device: torch.device) -> dict[str, Row]:
    """Measures what `path` does not have yet, until the time is up; each row is kept as soon as it is there."""
    rows: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    end = time.monotonic() + 60 * minutes
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in (row for section in chosen for row in SECTIONS[section](device)):
        if name in rows:
            continue
        if time.monotonic() > end:
            print(f"The time is up before {name}: run it again to go on.", file=sys.stderr)
            break
        # A kernel that never ends takes this process with it; the next run goes on behind it.
        rows[name] = {"failed": "It did not end."}
        keep(rows, path)
        faulthandler.dump_traceback_later(TOOL_SECONDS if name in ("tests", "profile") else ROW_SECONDS, exit=True)
        try:
            rows[name] = measure()
        except torch.cuda.OutOfMemoryError as error:
            rows[name] = {"skipped": str(error).splitlines()[0]}
        except Exception:  # the device's time is short: the other rows are measured all the same
            rows[name] = {"failed": traceback.format_exc()[-1500:]}
        faulthandler.cancel_dump_traceback_later()
        print(re.sub(r"(\d\.\d{4})\d*", r"\1", f"{name}: {json.dumps(rows[name])}")[:1500], flush=True)
        keep(rows, path)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def wrong(rows: dict[str, Row]) -> list[str]:
    """Names of rows whose outputs are not those of float64, or whose tests failed."""
    errors = {name: [row["worst"]] for name, row in rows.items() if "worst" in row}
    for name, row in rows.items():
        if "budgets" in row:
            errors[name] = [found["error"] for found in (*row["budgets"].values(), row.get("shared")) if found]
    bad = [name for name, found in errors.items() if not max(found) <= WORST_ERROR]
    return bad + [name for name, row in rows.items() if row.get("passed") is False or "failed" in row]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("results/attention_gpu.json"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--once", action="store_true", help="one step of one layer and no timing, for a profiler")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    device = torch.device("cuda")
    torch.manual_seed(0)
    if args.once:
        layers = layers_of("Qwen3-8B", BATCHES[-1], CONTEXTS[1], CONTEXTS[1], device)
        layers.plan(BUDGETS[0])
        layers.sparse_layer(0)
        torch.cuda.synchronize()
        return 0
    bad = wrong(session(args.json, args.only, args.minutes, device))
    if bad:
        print(f"Wrong, against float64 or in the tests: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
