"""Real vLLM engines with the plugin, on tiny models with random weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from select import select
from typing import Any

import torch
from transformers import (
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
    MistralConfig,
    MistralForCausalLM,
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


def mistral() -> PreTrainedModel:
    """Every layer has a window."""
    return MistralForCausalLM(MistralConfig(**CONFIG, sliding_window=128))


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


def laguna() -> PreTrainedModel:
    heads: dict[str, Any] = {"num_attention_heads_per_layer": [8, 4], "mlp_layer_types": ["dense"] * 2}
    return LagunaForCausalLM(LagunaConfig(**CONFIG, layer_types=["full_attention"] * 2, **heads))


ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
PROCESS = (sys.executable, "-m", "tests.sparse_backend.engine_process")


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
    """Each engine answers every run: all in one process, or `apart`, in processes as a server's.

    counted: tokens of a prompt and of a sample whose reads the engine "sparse" counts, see `counting.counted`.
    """
    job: dict[str, Any] = {"model": str(save(new_model, folder)), "runs": runs, "counted": counted}
    variables = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if apart else "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        **variables,
    }
    if not apart:
        return _answers(_forked(job | {"engines": engines, "environment": variables, "said": str(folder / "said")}))
    results: dict[str, Any] = {}
    for name, settings in engines.items():
        results |= _answers(_started(job | {"engines": {name: settings}}, variables))
    return results


def _answers(said: str) -> dict[str, Any]:
    lines = [line for line in said.splitlines() if line.startswith("RESULT ")]
    assert lines, said
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


def _started(job: dict[str, Any], variables: dict[str, str]) -> str:
    """What a new process says."""
    command = [*PROCESS, json.dumps(job)]
    environment = {**os.environ, **variables}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return done.stdout + done.stderr


def _forked(job: dict[str, Any]) -> str:
    """What a process says that is forked where vLLM is imported."""
    process = _parent()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    ended, _, _ = select([process.stdout], [], [], TIMEOUT_S)
    said = Path(job["said"]).read_text() if Path(job["said"]).exists() else ""
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
        _parent.cache_clear()
        raise TimeoutError(f"no end after {TIMEOUT_S} s: {said}")
    assert process.stdout.readline() == "done\n", said
    return said


@cache
def _parent() -> subprocess.Popen[str]:
    """It ends with this process, whose end of the pipe it reads from."""
    return subprocess.Popen(
        PROCESS,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


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
