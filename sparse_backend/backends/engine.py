"""Which engines sparse attention can serve."""

from __future__ import annotations

from collections.abc import Sequence

from vllm.config import VllmConfig
from vllm.model_executor.models.utils import extract_layer_index

from sparse_backend.config import BLOCK, KEY, ConfigError, SparseAttentionConfig
from sparse_backend.selection import get_selector


def check_engine(vllm_config: VllmConfig, more: Sequence[tuple[bool, str]] = ()) -> None:
    """Refuses engines whose KV cache sparse attention cannot follow. Raises ConfigError.

    more: further (refused, reason) of one platform.
    """
    model, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    refusals = [
        (model.use_mla, "does not support MLA models"),
        (model.is_encoder_decoder, "does not support encoder-decoder models"),
        (model.is_hybrid, "does not support models that mix attention with Mamba layers"),
        (
            cache.cache_dtype not in ("auto", "bfloat16", "float16"),
            f"does not support the KV cache dtype {cache.cache_dtype}: remove --kv-cache-dtype",
        ),
        (
            cache.user_specified_block_size and cache.block_size % BLOCK != 0,
            f"needs KV blocks of a multiple of {BLOCK} tokens: remove --block-size or set it to {BLOCK}",
        ),
        (
            vllm_config.kv_transfer_config is not None,
            "does not see what a KV connector writes to the cache: remove --kv-transfer-config",
        ),
        (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
            "does not support context parallelism: use tensor, pipeline or data parallelism",
        ),
        *more,
    ]
    for refused, reason in refusals:
        if refused:
            raise ConfigError(f"Sparse attention {reason}, or remove {KEY} from additional_config.")


def layer_shares(vllm_config: VllmConfig, config: SparseAttentionConfig) -> tuple[float, ...]:
    """Each layer's part of the KV budget. Raises ConfigError where they were given for another number of layers."""
    layers = vllm_config.model_config.hf_text_config.num_hidden_layers
    if config.layer_shares and len(config.layer_shares) != layers:
        given = len(config.layer_shares)
        raise ConfigError(f"{KEY}.layer_shares has {given} numbers, and the model {layers} layers: give one for each.")
    return tuple(config.layer_shares) or get_selector(config.selector).layer_shares(layers)


def share_of(layer_name: str, shares: tuple[float, ...]) -> float:
    """The part of the layer that vLLM calls `layer_name`; layers beyond the model's own (drafts) have 1."""
    index = extract_layer_index(layer_name)
    return shares[index] if index < len(shares) else 1.0
