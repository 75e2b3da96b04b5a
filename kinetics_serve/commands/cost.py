"""`kinetics-serve cost`: what one sample of a model costs."""

import json
from typing import Annotated

import typer

from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, fail, output
from kinetics_serve.cost import DENSE, KVPolicy, Price, load_architecture


def cost(
    model: Annotated[str, typer.Argument(help="Model folder or Hugging Face name.")],
    prompt_tokens: Annotated[int, typer.Option("--prompt", min=1)] = 512,
    generated_tokens: Annotated[int, typer.Option("--generated", min=1)] = 4096,
    kv_budget: Annotated[int | None, typer.Option(min=1, help="Token top-k budget. Default: dense.")] = None,
    hardware_name: HardwareName = None,
) -> None:
    """What one sample of a model costs, as JSON."""
    try:
        architecture = load_architecture(model)
    except (OSError, ValueError) as error:
        raise fail(error) from None
    profile = chosen_hardware(hardware_name)
    price = Price(architecture, profile.intensity)
    kv = DENSE if kv_budget is None else KVPolicy(kv_budget)
    prefill, decode = price.prefill(prompt_tokens), price.decode(prompt_tokens, generated_tokens, kv)
    report = {"model": model, "hardware": profile.name, "arithmetic_intensity": profile.intensity}
    for name, part in (("prefill", prefill), ("decode", decode), ("sample", prefill + decode)):
        report[name] = {
            "compute_flops": part.compute_flops,
            "memory_bytes": part.memory_bytes,
            "eflops": price.eflops(part),
        }
    output.print_json(json.dumps(report))
