"""Do eFLOPs say how long decoding takes? Predicted eFLOPs against measured decode steps of a vLLM engine.

A grid of context, batch and KV budget on the shapes of two models with dummy weights, every request with a prompt of
its own, in one engine with sparse attention for each, and a line for each. eFLOPs are counted for this machine
(`kinetics-serve hardware`) and for the engine as it says that it runs, as on a server. They leave out reading the
parameters and the engine's own work, which every step has: the line has an intercept. A time is the least of
several rounds' medians, so that what else the machine does for a while is not in it.

The same steps hold `kinetics-serve capacity` to what was measured: it is told the efficiency that this engine reached
in one cell, as its user would measure it, and predicts the others.

    python -m benchmarks.cost_model [--model NAME] [--out DIR]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import generate_latest

from benchmarks.attention_speed import SHAPES, machine
from benchmarks.step_speed import dtype
from kinetics_serve.commands.terminal import chosen_hardware
from kinetics_serve.cost import DENSE, Price, read_config
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.measured_cpu import engine_threads
from kinetics_serve.engine.info import read_info
from kinetics_serve.planner.capacity import Engine, Workload, speed

MODELS = ("smollm2", "qwen3-0.6b")
CONTEXTS = (256, 1024, 3072)
BATCHES = (1, 4, 8)
KV_BUDGETS = (None, 128, 512)
STEPS = 16
ROUNDS = 3
ANY_MEMORY = 1e12
"""Bytes: the cells fit."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One decode step of `batch` samples. kv_budget: None is dense. eflops: predicted, of all of them.

    capacity_ms: what `kinetics-serve capacity` takes a step for, at the full rates of the profile.
    """

    context: int
    batch: int
    kv_budget: int | None
    milliseconds: float
    eflops: float
    capacity_ms: float


@dataclass(frozen=True, slots=True)
class Fit:
    """milliseconds = intercept_ms + ms_per_gigaeflops × eFLOPs / 1e9."""

    intercept_ms: float
    ms_per_gigaeflops: float
    r_squared: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """efficiency: reached in the cell MEASURED_AT. least, most: of other cells, tokens/s over those predicted by it."""

    efficiency: float
    least: float
    most: float


MEASURED_AT = (1024, 4, None)

IN_A_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(engine_threads())}
"""Steps are taken, and timed, in the process that measures, on as many threads as a server's engine has."""


def measure(name: str, config: dict[str, Any], profile: HardwareProfile) -> list[Cell]:
    from vllm import LLM, SamplingParams

    from sparse_backend.engine_info import EngineInfo

    cells = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        llm = LLM(
            folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=max(CONTEXTS) + 2 * STEPS,
            max_num_seqs=max(BATCHES),
            enable_prefix_caching=True,
            additional_config={"sparse_attention": {"kv_budget": 512}},
            dtype=dtype(),
            kv_cache_memory_bytes=10 << 30,  # all prompts of the larger model, in float32
        )
        EngineInfo(llm.llm_engine.vllm_config, [0]).log_engine_initialized()  # what a server does by itself
        info = read_info(generate_latest().decode())
        print(f"{name}: {info}")
        architecture = info.architecture(read_config(config, name))
        price, sparse = Price.on(architecture, profile), info.kv_policy(architecture)

        def step_seconds(prompts: list[Any], kv_budget: int | None, steps: int = STEPS) -> float:
            """Median of the steps after the first tokens."""
            sampling = SamplingParams(
                temperature=0,
                max_tokens=steps + 1,
                ignore_eos=True,
                detokenize=False,
                extra_args={"kv_budget": kv_budget or 0},
            )
            for number, prompt in enumerate(prompts):
                llm.llm_engine.add_request(str(number), prompt, sampling)
            seconds = []
            while llm.llm_engine.has_unfinished_requests():
                start = time.perf_counter()
                llm.llm_engine.step()
                seconds.append(time.perf_counter() - start)
            return statistics.median(seconds[-steps:])

        prompts = {
            context: [
                {"prompt_token_ids": [(i * 7 + number) % 1000 + 1 for i in range(context)]}
                for number in range(max(BATCHES))
            ]
            for context in CONTEXTS
        }
        for each in prompts.values():
            step_seconds(each, None, 1)  # fills the prefix cache
        grid = [each for each in product(CONTEXTS, BATCHES, KV_BUDGETS) if each[2] is None or each[2] < each[0]]
        seconds = dict.fromkeys(grid, float("inf"))
        for number in range(ROUNDS):
            for cell in grid:
                context, batch, budget = cell
                seconds[cell] = min(seconds[cell], step_seconds(prompts[context][:batch], budget))
                print(f"round {number + 1} of {ROUNDS}, {cell}: {seconds[cell] * 1e3:.1f} ms", flush=True)
        for context, batch, budget in grid:
            kv = DENSE if budget is None else replace(sparse, budget=budget)
            eflops = price.eflops(price.decode(context, STEPS, kv)) / STEPS * batch
            engine, workload = Engine(profile, ANY_MEMORY), Workload(1.0, 1, context, STEPS)
            expected = speed(architecture, engine, workload, kv)
            capacity_s = expected.step_s(batch) - batch * expected.prefill_s / STEPS  # of prompts that are cached
            measured_s = seconds[context, batch, budget]
            cells.append(Cell(context, batch, budget, measured_s * 1e3, eflops, capacity_s * 1e3))
    return cells


def fit(cells: list[Cell]) -> Fit:
    """By least squares."""
    x = np.array([cell.eflops / 1e9 for cell in cells])
    y = np.array([cell.milliseconds for cell in cells])
    slope, intercept = np.polyfit(x, y, 1)
    residual = ((y - intercept - slope * x) ** 2).sum()
    return Fit(float(intercept), float(slope), float(1 - residual / ((y - y.mean()) ** 2).sum()))


def held(cells: list[Cell]) -> Capacity:
    shares = {(cell.context, cell.batch, cell.kv_budget): cell.capacity_ms / cell.milliseconds for cell in cells}
    efficiency = shares.pop(MEASURED_AT)
    return Capacity(efficiency, min(shares.values()) / efficiency, max(shares.values()) / efficiency)


def draw(cells: list[Cell], line: Fit, profile: HardwareProfile, path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for budget in KV_BUDGETS:
        own = [cell for cell in cells if cell.kv_budget == budget]
        label = "dense" if budget is None else f"KV budget {budget}"
        axes.scatter([cell.eflops / 1e9 for cell in own], [cell.milliseconds for cell in own], s=24, label=label)
    ends = [0.0, max(cell.eflops for cell in cells) / 1e9]
    axes.plot(ends, [line.intercept_ms + line.ms_per_gigaeflops * x for x in ends], "k-", lw=1, label="fit")
    axes.set_xlabel(f"predicted GeFLOPs of a decode step ({profile.intensity:.1f} FLOPs per byte)")
    axes.set_ylabel("measured ms")
    axes.set_title(f"R² {line.r_squared:.3f}, {machine()}", fontsize=9)
    axes.legend()
    axes.grid(alpha=0.3)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "cost_model"}):
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--out", type=Path, default=Path("results/cost_model"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    profile = chosen_hardware(None)
    more = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16", "bos_token_id": 0}
    ideal = 1e12 / profile.flops  # ms for 1e9 eFLOPs, at the speed that the profile was measured at
    models = {}
    os.environ |= IN_A_PROCESS
    for name in [arguments.model] if arguments.model else MODELS:
        config = {**SHAPES[name]["config"], **more}
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            cells = pool.submit(measure, name, config, profile).result()
        line = fit(cells)
        print(
            f"{name}: R² {line.r_squared:.3f}: {line.intercept_ms:.1f} ms + {line.ms_per_gigaeflops:.2f} ms for 1e9 "
            f"eFLOPs; {ideal / line.ms_per_gigaeflops:.0%} of the profile's own {ideal:.2f} ms"
        )
        reached = held(cells)
        print(
            f"{name}: capacity, at the {reached.efficiency:.0%} of the profile that {MEASURED_AT} reaches: the other "
            f"cells' tokens/s are {reached.least:.2f} to {reached.most:.2f} of what it says"
        )
        models[name] = {"fit": asdict(line), "capacity": asdict(reached), "cells": [*map(asdict, cells)]}
        draw(cells, line, profile, arguments.out / f"cost_model_{name}.svg")
    result = {"machine": machine(), "hardware": asdict(profile), "models": models}
    (arguments.out / "cost_model.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
