"""`kinetics-serve capacity`: how many engines a workload needs."""

import json
from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.table import Table

from kinetics_serve.commands.cost import PAGE_SIZE, SUMMARY_VECTORS
from kinetics_serve.commands.terminal import DollarsPerHour, HardwareName, chosen_hardware, fail, output
from kinetics_serve.cost import DENSE, KVPolicy, load_architecture
from kinetics_serve.planner.capacity import Capacity, DoesNotFit, Engine, Workload, capacity


def show_capacity(
    model: Annotated[str, typer.Argument(help="Model folder, config.json or Hugging Face name.")],
    memory: Annotated[float, typer.Option(min=0.1, max=1e6, help="GB of one device.")],
    rate: Annotated[float, typer.Option(min=1e-6, max=1e9, help="Requests a second.")],
    prompt_tokens: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of a prompt.")] = 512,
    generated_tokens: Annotated[int, typer.Option("--generated", min=1, help="Tokens of a sample.")] = 4096,
    samples: Annotated[int, typer.Option(min=1, help="Of a request: those that run, not those that it may have.")] = 8,
    kv_budget: Annotated[int, typer.Option(min=1, help="KV tokens attended to, beside dense attention.")] = 1024,
    devices: Annotated[int, typer.Option(min=1, help="That share an engine (tensor parallelism).")] = 1,
    efficiency: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the hardware's rates that your engine reaches.")
    ] = 1.0,
    most_busy: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Load of an engine; the rest is for peaks.")
    ] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="Exact numbers.")] = False,
    dollars_per_hour: DollarsPerHour = None,
    hardware_name: HardwareName = None,
) -> None:
    """How many engines a workload needs, dense and with a KV budget, and what a request costs on them."""
    profile = replace(chosen_hardware(hardware_name), dollars_per_hour=dollars_per_hour)
    engine = Engine(profile, memory * 1e9, devices, efficiency=efficiency, most_busy=most_busy)
    workload = Workload(rate, samples, prompt_tokens, generated_tokens)
    kv = KVPolicy(kv_budget, PAGE_SIZE, SUMMARY_VECTORS)
    try:
        architecture = load_architecture(model)
        found = {
            "dense": capacity(architecture, engine, workload, DENSE),
            f"KV budget {kv_budget:,}": capacity(architecture, engine, workload, kv),
        }
    except (OSError, ValueError, DoesNotFit) as error:
        raise fail(error) from None
    if as_json:
        output.print_json(json.dumps({name: asdict(each) for name, each in found.items()}))
    else:
        output.print(_table(f"{architecture.name} on {devices} × {profile.name}", found))


def _table(title: str, found: dict[str, Capacity]) -> Table:
    rows = Table(title=title, title_justify="left")
    rows.add_column("")
    for name in found:
        rows.add_column(name, justify="right")
    each = list(found.values())
    rows.add_row("engines", *(f"{one.engines:,}" for one in each))
    rows.add_row("devices", *(f"{one.devices:,}" for one in each))
    rows.add_row("tokens/s of an engine, at most", *(f"{one.engine_tokens:,.0f}" for one in each))
    rows.add_row("samples at a time, an engine", *(f"{one.batch:,.0f} (room for {one.room:,})" for one in each))
    rows.add_row(
        "GB of parameters, of a sample's KV", *(f"{_gb(one.weight_bytes)}, {_gb(one.sample_bytes)}" for one in each)
    )
    rows.add_row("ms a step", *(f"{one.step_s * 1e3:.3g}" for one in each))
    rows.add_row("s a request", *(f"{one.request_s:,.3g}" for one in each))
    if all(one.dollars is not None for one in each):
        rows.add_row("$ a request", *(f"{one.dollars:.3g}" for one in each))
    rows.caption = "Computed from the profile's rates, not measured; waiting is not in it."
    return rows


def _gb(number: float) -> str:
    return f"{number / 1e9:.3g}"
