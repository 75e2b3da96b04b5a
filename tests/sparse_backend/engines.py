"""Real vLLM engines with the plugin, on tiny models with random weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    Glm4Config,
    Glm4ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LagunaConfig,
    LagunaForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

# Tiny, with random weights: what matters here is that numbers are the same, or are not.
CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32, "hidden_size": 128,
    "intermediate_size": 256, "vocab_size": 512, "max_position_embeddings": 4096, "initializer_range": 0.15,
}  # fmt: skip
WINDOWED: dict[str, Any] = {
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 128,
    "query_pre_attn_scalar": 32, **CONFIG, "num_hidden_layers": 3,
}  # fmt: skip


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**CONFIG))


def gemma() -> PreTrainedModel:
    return Gemma3ForCausalLM(Gemma3TextConfig(**WINDOWED))


def gemma4() -> PreTrainedModel:
    kinds: dict[str, Any] = {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "sliding_window": 128,
    }
    sizes: dict[str, Any] = {"global_head_dim": 64, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}
    return Gemma4ForCausalLM(Gemma4TextConfig(**CONFIG | {"num_hidden_layers": 3}, **kinds, **sizes))


def gemma2() -> PreTrainedModel:
    """Logits with a soft cap, low enough that it matters; every second layer has a window."""
    return Gemma2ForCausalLM(Gemma2Config(**WINDOWED, attn_logit_softcapping=2.0))


def gpt_oss() -> PreTrainedModel:
    """Attention sinks."""
    experts: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
    kinds: dict[str, Any] = {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 128}
    return GptOssForCausalLM(GptOssConfig(**CONFIG, **experts, **kinds))


def llama4() -> PreTrainedModel:
    """Three layers of four attend in chunks."""
    experts: dict[str, Any] = {"num_local_experts": 2, "intermediate_size_mlp": 256}
    shape = CONFIG | {"num_hidden_layers": 4}
    return Llama4ForCausalLM(Llama4TextConfig(**shape, **experts, attention_chunk_size=256, pad_token_id=0))


def glm4() -> PreTrainedModel:
    return Glm4ForCausalLM(Glm4Config(**CONFIG, pad_token_id=0, eos_token_id=1))


def qwen3_moe() -> PreTrainedModel:
    """All of its experts take part: which do otherwise is decided by the last bits."""
    experts: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 64}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**CONFIG, **experts))


def qwen3_next() -> PreTrainedModel:
    """Gated DeltaNet in three layers of four."""
    linear: dict[str, Any] = {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    }  # fmt: skip
    experts: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    experts |= {"shared_expert_intermediate_size": 64, "decoder_sparse_step": 1}
    return Qwen3NextForCausalLM(Qwen3NextConfig(**CONFIG | {"num_hidden_layers": 4}, **linear, **experts))


def falcon_h1() -> PreTrainedModel:
    """Attention and Mamba-2 side by side in every layer."""
    mamba: dict[str, Any] = {
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_n_groups": 1,
        "mamba_d_state": 32,
    }
    return FalconH1ForCausalLM(FalconH1Config(**CONFIG, **mamba))


def laguna() -> PreTrainedModel:
    heads: dict[str, Any] = {"num_attention_heads_per_layer": [8, 4], "mlp_layer_types": ["dense"] * 2}
    return LagunaForCausalLM(LagunaConfig(**CONFIG, layer_types=["full_attention"] * 2, **heads))


SCRIPT = """
import json, sys
def main():
    from sparse_backend import plugin
    from vllm import LLM, SamplingParams
    job = json.loads(sys.argv[1])
    prompt = lambda n, seed: {"prompt_token_ids": [(i * i * 7 + i * seed) % 500 + 2 for i in range(n)]}
    results = {}
    llms = {name: LLM(job["model"], skip_tokenizer_init=True, enforce_eager=True, seed=0, max_model_len=2048,
                      max_num_seqs=8, **{"dtype": "float32", **settings}) for name, settings in job["engines"].items()}
    for engine, llm in llms.items():
        for name, run in job["runs"].items():
            params = [SamplingParams(temperature=run.get("temperature", 0), n=run.get("n", 1), seed=1,
                                     max_tokens=12, ignore_eos=True, detokenize=False, logprobs=1,
                                     extra_args={"kv_budget": b} if b is not None else None)
                      for b in run.get("budgets", [None] * len(run["prompts"]))]
            outputs = llm.generate([prompt(*p) for p in run["prompts"]], params, use_tqdm=False)
            results[engine + "/" + name] = [
                [o.token_ids, [next(iter(t.values())).logprob for t in o.logprobs]] for r in outputs for o in r.outputs]
    if job["counted"]:
        from tests.sparse_backend.counting import counted
        results["counted"] = counted(llms["sparse"], *job["counted"])
    print("RESULT " + json.dumps(results))
if __name__ == "__main__":
    main()
"""


def save(new_model: Callable[[], PreTrainedModel], folder: Path) -> Path:
    """The folder of a model with random weights, always the same."""
    torch.manual_seed(0)
    new_model().save_pretrained(folder / "model")
    return folder / "model"


def run_engines(
    folder: Path,
    engines: dict[str, Any],
    runs: dict[str, Any],
    new_model: Callable[[], PreTrainedModel] = llama,
    apart: bool = False,
    counted: tuple[int, int] | None = None,
    **variables: str,
) -> dict[str, Any]:
    """Each engine answers every run: all in one process, which starts fast, or `apart`, in processes as a server's.

    counted: tokens of a prompt and of a sample whose reads the engine "sparse" counts, see `counting.counted`.
    """
    model = save(new_model, folder)
    script = folder / "engines.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if apart else "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        **variables,
    }
    results: dict[str, Any] = {}
    for part in [{name: settings} for name, settings in engines.items()] if apart else [engines]:
        job = json.dumps({"model": str(model), "engines": part, "runs": runs, "counted": counted})
        done = subprocess.run(
            [sys.executable, str(script), job],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert lines, done.stdout + done.stderr
        results |= json.loads(lines[-1].removeprefix("RESULT "))
    return results


def sparse(**settings: Any) -> dict[str, Any]:
    return {"additional_config": {"sparse_attention": settings}}


def close(a: list[Any], b: list[Any]) -> bool:
    return all(
        x[0] == y[0] and max(abs(p - q) for p, q in zip(x[1], y[1], strict=True)) < 1e-4
        for x, y in zip(a, b, strict=True)
    )


def alike(a: list[Any], b: list[Any]) -> bool:
    """The same pages were read, but for near ties: batches of other requests round otherwise, and which requests are
    prefilled together depends on when they arrive.
    """
    return all(
        x[0][:4] == y[0][:4] and max(abs(p - q) for p, q in zip(x[1][:4], y[1][:4], strict=True)) < 0.02
        for x, y in zip(a, b, strict=True)
    )


def near(sparse: list[Any], dense: list[Any]) -> bool:
    """Some tokens of decode are the same, with nearly the same probabilities; the first comes from the prefill."""
    (tokens, logprobs), (dense_tokens, dense_logprobs) = sparse[0], dense[0]
    differences = [abs(a - b) for a, b in zip(logprobs[:4], dense_logprobs[:4], strict=True)]
    return tokens[:4] == dense_tokens[:4] and 0 < max(differences) < 0.1
