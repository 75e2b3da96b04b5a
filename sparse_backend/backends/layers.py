"""Which attention layers are sparse, and why the others are not."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.attention.chunked_local_attention import ChunkedLocalAttention
from vllm.v1.attention.backend import AttentionType


def dense_reason(layer: Attention) -> str | None:
    """Why a layer stays dense; None where its long decode steps are sparse.

    A layer with a window or with chunks reads little, and the kernels know no biases.
    """
    impl: Any = layer.impl
    impl_sizes = getattr(impl, "head_sizes", None)
    reasons = [
        (layer.attn_type != AttentionType.DECODER, "no decoder"),
        (layer.sliding_window is not None, "sliding window"),
        (isinstance(layer, ChunkedLocalAttention) or getattr(impl, "chunk_lookback", -1) >= 0, "chunked attention"),
        (getattr(impl, "alibi_slopes", None) is not None, "ALiBi"),
        (not hasattr(impl, "head_sizes"), "another attention backend"),
        (impl_sizes is not None and layer.head_size not in impl_sizes, "head size"),
    ]
    return next((reason for applies, reason in reasons if applies), None)
