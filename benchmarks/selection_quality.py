"""Which pages? Attention-output error and attention mass kept, against all bytes read, for every selector.

Runs a model once over real text, keeps the queries, keys and values of its attention layers, and for the last
positions compares each selector's output with dense attention. Bytes count whole: keys, values and summaries, as a
share of what dense attention reads. Prints the table, writes JSON and a plot of the Pareto frontier (SVG).

    python -m benchmarks.selection_quality [MODEL_FOLDER] [--text FILE] [--tokens 4096]
"""

from __future__ import annotations

import argparse
import json
import math
import pydoc_data.topics
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from sparse_backend.constants import BLOCK
from sparse_backend.kernels import DecodeBatch, Heads, Softmax, cpu_kernels
from sparse_backend.kernels.batch import keys_and_values
from sparse_backend.selection import get_selector

SELECTORS = ("low_rank", "quest", "block_mean", "exact")


def read_text(path: str | None) -> str:
    """A text file; of a JSONL file the string fields of each line; by default CPython's own documentation."""
    if path is None:
        return "\n\n".join(pydoc_data.topics.topics.values())
    content = Path(path).read_text()
    if not path.endswith(".jsonl"):
        return content
    rows = [json.loads(line) for line in content.splitlines() if line]
    return "\n\n".join("\n".join(f"{k.capitalize()}: {v}" for k, v in r.items() if isinstance(v, str)) for r in rows)


def model_folder(given: str | None) -> str:
    """The folder given, or the model that the project can produce itself."""
    if given is not None:
        return given
    from kinetics_serve.engine.embedded.bundled_model import bundled_model

    return str(bundled_model())


def capture(folder: str, text: str, tokens: int, step: int) -> list[tuple[torch.Tensor, ...]]:
    """Queries at every `step`-th of the last 256 positions, and all keys and values, of each layer.

    Returns [(query [heads, positions, head_size], key [kv_heads, tokens, head_size], value)].
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    kv_heads = model.config.num_key_value_heads
    ids = tokenizer(text)["input_ids"][:tokens]
    if len(ids) < tokens:
        raise SystemExit(f"the text has {len(ids)} tokens: give a longer one with --text, or fewer --tokens")
    layers: list[tuple[torch.Tensor, ...]] = []
    stock = F.scaled_dot_product_attention

    def record(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        repeat = k.shape[1] // kv_heads
        layers.append((q[0, :, tokens - 256 :: step].clone(), k[0, ::repeat].clone(), v[0, ::repeat].clone()))
        return stock(q, k, v, *args, **kwargs)

    F.scaled_dot_product_attention = record  # type: ignore[assignment]
    try:
        model(torch.tensor([ids]), logits_to_keep=1)
    finally:
        F.scaled_dot_product_attention = stock
    return layers


def dense_attention(layers: list[tuple[torch.Tensor, ...]], positions: list[int]) -> list[list[tuple[Any, Any]]]:
    """For each layer and position: probabilities [kv_heads, group, context] and output [heads, head_size]."""
    results = []
    for query, key, value in layers:
        kv_heads, _, head_size = key.shape
        rows = []
        for i, position in enumerate(positions):
            q = query[:, i].view(kv_heads, -1, head_size)
            probability = torch.softmax(q @ key[:, : position + 1].mT / math.sqrt(head_size), -1)
            rows.append((probability, (probability @ value[:, : position + 1]).flatten(0, 1)))
        results.append(rows)
    return results


def evaluate(
    layers: list[tuple[torch.Tensor, ...]],
    dense: list[list[tuple[Any, Any]]],
    positions: list[int],
    selector_name: str,
    page_size: int,
    budget: int,
) -> dict[str, Any]:
    """Mean relative error of the attention output, mean attention mass of the keys read, share of bytes read."""
    selector = get_selector(selector_name)
    kernels = cpu_kernels(selector)
    errors, masses, shares = [], [], []
    for layer, ((query, key, value), reference) in enumerate(zip(layers, dense, strict=True)):
        first, others = selector.layer_budgets(budget, len(layers), True)
        layer_budget = first if layer == 0 else others
        kv_heads, tokens, head_size = key.shape
        group = query.shape[0] // kv_heads
        heads = Heads(kv_heads, group, head_size, page_size, torch.float32, selector, 16, 64)
        blocks = -(-tokens // BLOCK)
        kernel_blocks = blocks * heads.kernel_blocks_of_tile
        cache = torch.zeros(kernel_blocks, kv_heads, heads.kernel_block_tokens, 2 * head_size)
        keys, values = keys_and_values(cache, head_size)
        padding = (0, 0, 0, blocks * BLOCK - tokens)
        keys.copy_(F.pad(key, padding).unflatten(1, (-1, heads.kernel_block_tokens)).permute(1, 0, 3, 2))
        values.copy_(F.pad(value, padding).unflatten(1, (-1, heads.kernel_block_tokens)).transpose(0, 1))
        tiles = torch.zeros(blocks, kv_heads, max(1, heads.tile_bytes), dtype=torch.uint8)
        n = len(positions)
        requests = torch.arange(n, dtype=torch.int32)
        batch = DecodeBatch(
            seq_lens=torch.tensor([p + 1 for p in positions], dtype=torch.int32),
            block_table=torch.arange(kernel_blocks, dtype=torch.int32).repeat(n, 1),
            requests=requests,
            tokens=requests,
            key_tokens=torch.full((n,), selector.key_tokens(layer_budget, page_size), dtype=torch.int32),
            value_tokens=torch.full((n,), selector.value_tokens(layer_budget), dtype=torch.int32),
        )
        last = torch.tensor([n - 1], dtype=torch.int32)
        kernels.update_summaries(heads, batch, cache, tiles, last, torch.zeros(1, dtype=torch.int32))
        q = query.transpose(0, 1).contiguous()
        scale = 1 / math.sqrt(head_size)
        output = torch.empty_like(q)
        kernels.decode(heads, batch, q, cache, tiles, output, Softmax(scale))
        table, counts = kernels.select_pages(heads, batch, q, tiles, Softmax(scale))
        for i, position in enumerate(positions):
            context = position + 1
            probability, expected = reference[i]
            errors.append(((output[i] - expected).norm(dim=-1) / expected.norm(dim=-1)).mean().item())
            mass = torch.zeros(kv_heads, group, blocks * heads.pages_of_tile).index_add_(
                2, torch.arange(context) // page_size, probability
            )
            for head in range(kv_heads):
                selected = table[i, head, : int(counts[i, head])].long()
                masses.append(mass[head, :, selected].sum(-1).mean().item())
                size = heads.kernel_block_tokens  # whose keys share cache lines
                keys_read = min(len((selected * page_size // size).unique()) * size, context)
                values_read = min(selector.value_tokens(layer_budget), context)
                # 16-bit keys and values, as served; a whole tile for each block scored.
                read = 2 * head_size * (keys_read + values_read) + heads.tile_bytes * context / BLOCK
                shares.append(read / (4 * head_size * context))
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return {
        "selector": selector_name,
        "page_size": page_size,
        "budget": budget,
        "bytes_share": mean(shares),
        "mass_kept": mean(masses),
        "relative_error": mean(errors),
    }


def pareto(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points that no other point beats in both bytes and error, by bytes."""
    frontier: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bytes_share"], p["relative_error"])):
        if not frontier or point["relative_error"] < frontier[-1]["relative_error"]:
            frontier.append(point)
    return frontier


def plot(points: list[dict[str, Any]], title: str) -> str:
    """An SVG of error against bytes, logarithmic both ways, the frontier drawn through."""
    width, height, margin = 720, 480, 60
    colours = dict(zip(SELECTORS, ("#c0392b", "#2471a3", "#7d8a2e", "#7f8c8d"), strict=True))
    x = [math.log(p["bytes_share"]) for p in points]
    y = [math.log(p["relative_error"]) for p in points]

    def place(p: dict[str, Any]) -> tuple[float, float]:
        fx = (math.log(p["bytes_share"]) - min(x)) / (max(x) - min(x) or 1)
        fy = (math.log(p["relative_error"]) - min(y)) / (max(y) - min(y) or 1)
        return margin + fx * (width - 2 * margin), height - margin - fy * (height - 2 * margin)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{margin}" y="24" font-size="14">{title}</text>',
        f'<text x="{width / 2}" y="{height - 12}">share of dense bytes read</text>',
        f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})">mean relative output error</text>',
    ]
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(place, pareto(points)))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#bbb" stroke-width="2"/>')
    for p in points:
        a, b = place(p)
        label = f"{p['page_size']}/{p['budget']} {p['bytes_share']:.0%} {p['relative_error']:.3f}"
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colours[p["selector"]]}"/>')
        parts.append(f'<text x="{a + 6:.1f}" y="{b - 4:.1f}" font-size="8" fill="#555">{label}</text>')
    for i, (name, colour) in enumerate(colours.items()):
        parts.append(f'<text x="{width - margin - 70}" y="{margin + 14 * i}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a Hugging Face model (default: the bundled one)")
    parser.add_argument("--text", help="text file or JSONL (default: CPython's own documentation)")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--budgets", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--page-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--selectors", nargs="+", default=list(SELECTORS), choices=SELECTORS)
    parser.add_argument("--step", type=int, default=32, help="of the last 256 positions, every how many-th to compare")
    parser.add_argument("--out", type=Path, default=Path("results/selection_quality.json"))
    args = parser.parse_args()
    args.model = model_folder(args.model)
    with torch.no_grad():
        layers = capture(args.model, read_text(args.text), args.tokens, args.step)
        positions = list(range(args.tokens - 256, args.tokens, args.step))
        dense = dense_attention(layers, positions)
        points = []
        print(f"{'selector':12}{'page':>6}{'budget':>8}{'bytes read':>12}{'mass kept':>11}{'error':>9}")
        for selector in args.selectors:
            for page_size in args.page_sizes[-1:] if selector == "exact" else args.page_sizes:
                for budget in args.budgets:
                    p = evaluate(layers, dense, positions, selector, page_size, budget)
                    points.append(p)
                    print(
                        f"{selector:12}{page_size:6}{budget:8}{p['bytes_share']:12.1%}{p['mass_kept']:11.4f}"
                        f"{p['relative_error']:9.4f}",
                        flush=True,
                    )
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"model": args.model, "tokens": args.tokens, "points": points}, indent=2) + "\n")
    title = f"{Path(args.model).name}, {args.tokens} tokens (labels: page size/budget, bytes, error)"
    out.with_suffix(".svg").write_text(plot(points, title))
    print("Pareto frontier: " + ", ".join(f"{p['selector']}/{p['page_size']}/{p['budget']}" for p in pareto(points)))


if __name__ == "__main__":
    main()
