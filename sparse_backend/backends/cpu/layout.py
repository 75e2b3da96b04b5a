"""Where a layer's tiles lie: behind all keys and values, or behind those of each KV block where layers share blocks."""

from __future__ import annotations

from collections.abc import Iterable

from vllm.model_executor.layers.attention import Attention

from sparse_backend.backends.engine import Engine
from sparse_backend.config import KEY, ConfigError
from sparse_backend.constants import BLOCK, kernel_block_tokens


def differ_in_shape(layers: Iterable[Attention]) -> bool:
    """Whether layers of different shapes take blocks of the same memory, as those with and without a window do."""
    known = {(layer.num_kv_heads, layer.head_size, layer.sliding_window is not None) for layer in layers}
    return len({shape[:2] for shape in known}) > 1 and len({shape[2] for shape in known}) > 1


def block_stride(engine: Engine, kv_heads: int, head_size: int) -> int:
    """`Heads.block_stride` of an engine's layers of one shape. Raises ConfigError.

    vLLM makes blocks of one size in bytes by giving more tokens to those of layers that take less for each.
    """
    layers = engine.attention_layers().values()
    if not (engine.hybrid or differ_in_shape(layers)):
        return 0
    widest = max(layer.num_kv_heads * layer.head_size for layer in layers)
    if widest % (kv_heads * head_size):
        raise ConfigError(
            f"Sparse attention cannot share KV blocks between layers of {widest} and of {kv_heads * head_size} "
            f"dimensions in all KV heads, which is no divisor: remove {KEY} from additional_config."
        )
    tokens = engine.vllm_config.cache_config.block_size * widest // (kv_heads * head_size)
    return tokens // kernel_block_tokens(engine.config.page_size) + tokens // BLOCK
