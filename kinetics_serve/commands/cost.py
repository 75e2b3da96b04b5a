"""`kinetics-serve cost`: what models cost to serve, as a table or as exact numbers."""

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from kinetics_serve.commands.terminal import HardwareName, chosen_hardware, errors, fail, output
from kinetics_serve.cost import (
    DENSE,
    Architecture,
    AttentionLayers,
    Cost,
    IndexLayers,
    KVPolicy,
    LatentLayers,
    Price,
    load_architecture,
)
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.layers import Layers

CONTEXTS = (1_000, 16_000, 128_000)
KV_BUDGET = 1024
PAGE_SIZE, SUMMARY_VECTORS = 16, 2  # pages chosen by Quest, as engines of other selectors come near


def cost(
    model: Annotated[str | None, typer.Argument(help="Model folder, config.json or Hugging Face name.")] = None,
    others: Annotated[list[str] | None, typer.Argument(help="More of them, with --compare.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Several models side by side.")] = False,
    context: Annotated[
        list[int] | None, typer.Option(min=1, help="Tokens of context to price a token at; repeat for several.")
    ] = None,
    kv_budget: Annotated[
        int | None, typer.Option(min=1, help="KV tokens attended to. Default: 1024; --json: dense.")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt", min=1)] = 512,
    generated_tokens: Annotated[int, typer.Option("--generated", min=1)] = 4096,
    samples: Annotated[int, typer.Option(min=1, help="Samples of the prompt, which share reading it.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Exact numbers, one object a model.")] = False,
    hardware_name: HardwareName = None,
) -> None:
    """What a model costs: its parameters and layers, and the eFLOPs of a token and of samples."""
    models = [each for each in (model, *(others or ())) if each is not None]
    if not models or (len(models) > 1 and not compare):
        raise fail("cost takes one model, or several with --compare")
    architectures = {}
    for name in models:
        try:
            architectures[name] = load_architecture(name)
        except (OSError, ValueError) as error:
            if len(models) == 1:
                raise fail(error) from None
            errors.print(f"error: {error}", soft_wrap=True, markup=False)
    if not architectures:
        raise typer.Exit(1)
    profile = chosen_hardware(hardware_name)
    contexts = tuple(context or CONTEXTS)
    if as_json:
        kv = DENSE if kv_budget is None else KVPolicy(kv_budget, PAGE_SIZE, SUMMARY_VECTORS)
        reports = [
            report(architecture, profile, kv, contexts, prompt_tokens, generated_tokens, samples)
            for architecture in architectures.values()
        ]
        output.print_json(json.dumps(reports if compare else reports[0]))
    else:
        kv = KVPolicy(kv_budget or KV_BUDGET, PAGE_SIZE, SUMMARY_VECTORS)
        output.print(table(architectures, profile, kv, contexts, prompt_tokens, generated_tokens, samples))
    if len(architectures) < len(models):
        raise typer.Exit(1)


def report(
    architecture: Architecture,
    profile: HardwareProfile,
    kv: KVPolicy,
    contexts: tuple[int, ...],
    prompt_tokens: int,
    generated_tokens: int,
    samples: int,
) -> dict[str, Any]:
    """Exact numbers: FLOPs, bytes and eFLOPs of prefill, decode and one sample, of all samples, and of one token at
    each context."""
    price = Price.on(architecture, profile)
    prefill, decode = price.prefill(prompt_tokens), price.decode(prompt_tokens, generated_tokens, kv)
    parts = {"prefill": prefill, "decode": decode, "sample": prefill + decode}
    parts["samples"] = price.together(prompt_tokens, generated_tokens, samples, kv)
    costs = {name: _exact(price, part) for name, part in parts.items()}
    return {
        "model": architecture.name,
        "parameters": architecture.parameters,
        "active_parameters": architecture.active_parameters,
        "looked_up_embedding": architecture.looked_up_embedding,
        "layers": [describe(group) for group in architecture.layers],
        "kv_bytes": architecture.kv_bytes,
        "kv_token_bytes": architecture.kv_token_bytes,
        "state_bytes": _state_bytes(architecture),
        "gemm_dtype": architecture.gemm_dtype,
        "max_context": architecture.max_context,
        "hardware": profile.name,
        "arithmetic_intensity": price.intensity,
        **costs,
        "token": {str(context): _exact(price, price.decode(context - 1, 1, kv)) for context in contexts},
    }


def table(
    architectures: dict[str, Architecture],
    profile: HardwareProfile,
    kv: KVPolicy,
    contexts: tuple[int, ...],
    prompt_tokens: int,
    generated_tokens: int,
    samples: int,
) -> Table:
    """A column a model."""
    prices = [Price.on(architecture, profile) for architecture in architectures.values()]
    rows = Table(title=profile.name, title_justify="left", show_lines=False)
    rows.add_column("")
    for architecture in architectures.values():
        rows.add_column(architecture.name, justify="right", overflow="fold")

    def row(name: str, values: list[str], section: bool = False) -> None:
        rows.add_row(name, *values, end_section=section)

    known = [price.architecture for price in prices]
    row("parameters", [_number(each.parameters) for each in known])
    row("active", [_number(each.active_parameters) for each in known])
    row("multiplied", [_number(each.multiplied_parameters) for each in known])
    row("layers", ["\n".join(map(describe, each.layers)) for each in known])
    row("KV bytes a token", [f"{each.kv_token_bytes:,}" for each in known])
    if any(_state_bytes(each) for each in known):
        row("state bytes", [f"{_state_bytes(each):,}" for each in known])
    row("FLOPs per byte", [f"{price.intensity:.1f} ({price.architecture.gemm_dtype})" for price in prices], True)
    for policy, name in ((DENSE, "dense"), (kv, f"KV budget {kv.budget:,}")):
        for context in contexts:
            tokens = [price.eflops(price.decode(context - 1, 1, policy)) for price in prices]
            beyond = [each.max_context is not None and context > each.max_context for each in known]
            texts = [f"{value:.3g}{' *' if over else ''}" for value, over in zip(tokens, beyond, strict=True)]
            row(f"eFLOPs a token at {context:,}, {name}", texts, context == contexts[-1])
    for policy, name in ((DENSE, "dense"), (kv, f"KV budget {kv.budget:,}")):
        costs = [price.eflops(price.together(prompt_tokens, generated_tokens, samples, policy)) for price in prices]
        title = f"eFLOPs of {samples} × {generated_tokens:,} tokens after {prompt_tokens:,}, {name}"
        row(title, [f"{value:.3g}" for value in costs])
    if any(each.max_context is not None and max(contexts) > each.max_context for each in known):
        rows.caption = "* beyond the model's longest context"
    return rows


def describe(group: Layers) -> str:
    """A group of layers in a line."""
    if isinstance(group, AttentionLayers):
        limit = (
            f"window {group.window:,}" if group.window is not None
            else f"chunks of {group.chunk:,}" if group.chunk is not None
            else f"best {group.best:,}" if group.best is not None
            else "full"
        )  # fmt: skip
        size = str(group.head_size) if group.value_size is None else f"{group.head_size}/{group.value_size}"
        shared = "" if group.stores else ", shared KV"
        return f"{group.count} × {limit}: {group.query_heads} heads, {group.kv_heads} KV of {size}{shared}"
    if isinstance(group, LatentLayers):
        limit = "latent" if group.best is None else f"latent, best {group.best:,}"
        return f"{group.count} × {limit}: {group.query_heads} heads, {group.latent_size} + {group.rope_size}"
    if isinstance(group, IndexLayers):
        return f"{group.count} × index: {group.heads} heads of {group.head_size}"
    return f"{group.count} × state: {group.state_bytes // (2 * group.count):,} bytes"


def _state_bytes(architecture: Architecture) -> int:
    """Of all recurrent layers of one sample."""
    return sum(group.state_bytes // 2 for group in architecture.layers)


def _exact(price: Price, part: Cost) -> dict[str, float]:
    return {
        "compute_flops": part.compute_flops,
        "memory_bytes": part.memory_bytes,
        "eflops": price.eflops(part),
    }


def _number(parameters: int) -> str:
    return f"{parameters / 1e9:.3f}e9" if parameters >= 1e9 else f"{parameters / 1e6:.1f}e6"
