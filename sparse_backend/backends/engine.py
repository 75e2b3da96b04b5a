"""Which engines sparse attention can serve."""

from __future__ import annotations

from collections.abc import Sequence

from vllm.config import VllmConfig
from vllm.logger import init_logger

from sparse_backend.config import BLOCK, KEY, ConfigError

logger = init_logger(__name__)


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
    if vllm_config.speculative_config is not None and not vllm_config.use_v2_model_runner:
        logger.warning_once(
            "vLLM loads no logits processors with speculative decoding, so the kv_budget of single requests is not "
            "followed: all have that of %s.",
            KEY,
        )
