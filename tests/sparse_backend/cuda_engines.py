"""What the CUDA backend reads of an engine's configuration, without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from vllm.config import CUDAGraphMode

KV_HEADS, QUERIES_PER_KV, HEAD_SIZE = 2, 2, 32
BUDGET = 96
SPARSE = {"sparse_attention": {"kv_budget": BUDGET, "sink_tokens": 16, "local_tokens": 32}}


def engine(additional_config: Any = SPARSE, **changes: Any) -> Any:
    """What the backend reads of a VllmConfig; `changes` by dotted name, dots written as two underscores."""
    config = SimpleNamespace(
        additional_config=additional_config,
        model_config=SimpleNamespace(
            use_mla=False,
            is_encoder_decoder=False,
            is_hybrid=False,
            rswa_window=None,
            is_mm_prefix_lm=False,
            dtype=torch.float32,
            max_model_len=512,
            hf_text_config=SimpleNamespace(num_hidden_layers=4),
            get_num_attention_heads=lambda _: KV_HEADS * QUERIES_PER_KV,
            get_num_kv_heads=lambda _: KV_HEADS,
            get_head_size=lambda: HEAD_SIZE,
        ),
        cache_config=SimpleNamespace(
            cache_dtype="auto",
            user_specified_block_size=False,
            block_size=16,
            kv_sharing_fast_prefill=False,
            kv_offloading_size=None,
        ),
        use_v2_model_runner=True,
        instance_id="test",
        parallel_config=SimpleNamespace(
            rank=0,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            cp_kv_cache_interleave_size=1,
            use_ubatching=False,
        ),
        scheduler_config=SimpleNamespace(max_num_seqs=4),
        compilation_config=SimpleNamespace(
            cudagraph_mode=CUDAGraphMode.NONE, max_cudagraph_capture_size=None, static_forward_context={}
        ),
        attention_config=SimpleNamespace(),
        kernel_config=SimpleNamespace(enable_jit_warmup=False),
        device_config=SimpleNamespace(device_type="cpu"),
        speculative_config=None,
        kv_transfer_config=None,
    )
    for name, value in changes.items():
        *parents, last = name.split("__")
        target = config
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)
    return config
