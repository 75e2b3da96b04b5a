"""What sparse attention does to the next token: teacher-forced decode of real text through a real vLLM engine.

Each text is decoded twice in the same engine, dense and under the KV budget, and the true next token is forced after
every step. Prints the KL divergence of the sparse next-token distribution from the dense one (nats), how often their
first choices agree, and the negative log-likelihoods of the text.

    python -m benchmarks.decode_quality [MODEL_FOLDER] [--text FILE] [--context 4096] [--budget 512]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from benchmarks.selection_quality import model_folder, read_text


class TeacherForcing(LogitsProcessor):
    """Records the log-probabilities of every decode step of a request, then forces the token that the text has."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self.requests: dict[int, tuple[list[int], str, list[int], list[torch.Tensor]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        def state(params: Any, _: Any, output: list[int]) -> tuple[Any, ...] | None:
            given = params.extra_args or {}
            return (given["forced"], given["record"], output, []) if "forced" in given else None

        process_dict_updates(self.requests, batch_update, state)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for row, (forced, record, output, steps) in self.requests.items():
            step = len(output)
            if step >= len(forced) or row >= len(logits):
                continue
            del steps[step:]  # a prefill chunk that ends early is computed again
            steps.append(torch.log_softmax(logits[row].float(), -1))
            if step == len(forced) - 1:
                torch.save(torch.stack(steps), record)
            logits[row] = -torch.inf
            logits[row, forced[step]] = 0.0
        return logits


def measure(args: argparse.Namespace) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    settings = {"kv_budget": args.budget, "selector": args.selector, "page_size": args.page_size}
    llm = LLM(
        args.model,
        dtype=args.dtype,
        max_model_len=args.context + 1,
        max_num_seqs=1,
        enforce_eager=True,
        enable_prefix_caching=True,
        additional_config={"sparse_attention": settings},
        logits_processors=["benchmarks.decode_quality:TeacherForcing"],
    )
    tokens = llm.get_tokenizer()(read_text(args.text))["input_ids"]
    results = []
    for start in range(0, args.texts * args.context, args.context):
        text = tokens[start : start + args.context]
        if len(text) < args.context:
            break
        prompt, forced = text[: -args.steps], text[-args.steps :]
        with tempfile.TemporaryDirectory() as folder:
            records = {}
            for name, budget in (("dense", 0), ("sparse", args.budget)):
                records[name] = str(Path(folder) / name)
                extra = {"kv_budget": budget, "forced": forced, "record": records[name]}
                llm.generate(
                    {"prompt_token_ids": prompt},
                    SamplingParams(temperature=0, max_tokens=args.steps, ignore_eos=True, extra_args=extra),
                    use_tqdm=False,
                )
            dense, sparse = (torch.load(records[name]) for name in ("dense", "sparse"))
        kl = (dense.exp() * (dense - sparse)).sum(-1)
        target = torch.tensor(forced)[:, None]
        results.append(
            {
                "kl_mean": kl.mean().item(),
                "kl_p95": kl.quantile(0.95).item(),
                "top1_agreement": (dense.argmax(-1) == sparse.argmax(-1)).float().mean().item(),
                "nll_dense": -dense.gather(1, target).mean().item(),
                "nll_sparse": -sparse.gather(1, target).mean().item(),
            }
        )
    if not results:
        raise SystemExit(f"the text has fewer than {args.context} tokens: give a longer one with --text")
    mean = {key: sum(r[key] for r in results) / len(results) for key in results[0]}
    return {
        "model": args.model,
        "context": args.context,
        "dtype": args.dtype,
        **settings,
        "texts": len(results),
        **mean,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a Hugging Face model (default: the bundled one)")
    parser.add_argument("--text", help="text file or JSONL (default: CPython's own documentation)")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--steps", type=int, default=256, help="tokens decoded at the end of each text")
    parser.add_argument("--texts", type=int, default=1)
    parser.add_argument("--selector", default="low_rank")
    parser.add_argument("--page-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("results/decode_quality.json"))
    args = parser.parse_args()
    args.model = model_folder(args.model)
    root = str(Path(__file__).resolve().parent.parent)  # the engine's worker imports TeacherForcing too
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH")) if p)
    result = measure(args)
    for key, value in result.items():
        print(f"{key:16} {value:.4f}" if isinstance(value, float) else f"{key:16} {value}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
