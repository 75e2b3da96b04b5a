"""What the layers of a real engine attend to, step by step, and what the engine says of itself."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch


def counted(llm: Any, prompt_tokens: int, tokens: int) -> dict[str, Any]:
    """A greedy sample on an engine that runs in this process.

    `bytes`: of keys and values that its attention layers attend to in decode, a sparse one's as its budget allows.
    `steps`: decode steps. `metrics`: the engine's, as `/metrics` would have them.
    """
    from prometheus_client import generate_latest
    from vllm import SamplingParams

    from sparse_backend.backends.cpu.layer import SparseCPUImpl
    from sparse_backend.engine_info import EngineInfo

    read: dict[str, list[int]] = {}
    forward = SparseCPUImpl.forward

    def counting(
        self: SparseCPUImpl, layer: Any, query: Any, key: Any, value: Any, cache: Any, metadata: Any, **rest: Any
    ) -> Any:
        if metadata is not None and int(metadata.query_start_loc[-1]) == 1:  # a decode step
            if self.sparse and len(metadata.batch.requests):
                attended = self.engine.layer_budgets(self.engine.config.kv_budget)[0 if self.first else 1]
            else:
                attended = int((metadata if self.sparse else metadata.dense or metadata).seq_lens[0])
                attended = attended if self.sliding_window == -1 else min(attended, self.sliding_window)
            token_bytes = 2 * self.num_kv_heads * self.head_size * cache.element_size()
            read.setdefault(layer.layer_name, []).append(attended * token_bytes)
        return forward(self, layer, query, key, value, cache, metadata, **rest)

    prompt = {"prompt_token_ids": [(i * i * 7 + i * 11) % 500 + 2 for i in range(prompt_tokens)]}
    greedy = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    with patch.object(SparseCPUImpl, "forward", counting):
        llm.generate([prompt], greedy, use_tqdm=False)
    EngineInfo(llm.llm_engine.vllm_config, [0]).log_engine_initialized()
    return {
        "bytes": sum(map(sum, read.values())),
        "steps": max(map(len, read.values())),
        "metrics": generate_latest().decode(),
    }
