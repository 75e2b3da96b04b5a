"""How vLLM's KV cache is laid out where CUDA attention is sparse, beside FlashAttention or Triton attention."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)
from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadataBuilder,
)
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from sparse_backend.backends.cuda.builder import SparseBuilder
from sparse_backend.backends.cuda.layer import SparseImpl
from sparse_backend.backends.engine import Engine
from sparse_backend.constants import BLOCK
from sparse_backend.kernels import triton as kernels


class SparseBackend:
    """What the two backends below add to their stock ones. Each engine has a subclass of its own: `Engine.backend`."""

    engine: ClassVar[Engine]

    @classmethod
    def get_supported_kernel_block_sizes(cls, kv_cache_spec: Any = None) -> list[Any]:
        """A block is what one tile of summaries describes."""
        return [BLOCK]

    @classmethod
    def get_preferred_block_size(cls, default_block_size: int) -> int:
        return -(-default_block_size // BLOCK) * BLOCK

    @classmethod
    def supported_kv_cache_layouts(cls) -> tuple[KVCacheLayout, ...]:
        """Those that keep a layer's block in one piece, head after head."""
        return (KVCacheLayout.LBHNC, KVCacheLayout.BLHNC)

    @classmethod
    def supports_block_size(cls, block_size: int | None) -> bool:
        return block_size is None or block_size % BLOCK == 0

    @classmethod
    def supports_kv_connector(cls) -> bool:
        """A connector writes blocks whose summaries nobody would write."""
        return False

    @classmethod
    def supports_batch_invariance(cls) -> bool:
        """How a request's pages are split, and so in which order they are summed, depends on the batch."""
        return False

    @classmethod
    def supports_kv_cache_update_bypass(cls) -> bool:
        """From vLLM 0.33 on, a backend's own update may be left out: ours finds the regions of the cache."""
        return False

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """Makes room for page summaries in every KV block, so that vLLM budgets for them."""
        heads = cls.engine.heads(spec.num_kv_heads, 1, spec.head_size, spec.dtype)
        content = (spec.head_size + spec.head_size_v) * spec.dtype.itemsize
        return replace(spec, state_content_bytes=content + kernels.tile_bytes_per_token(heads))


class SparseFlashAttentionImpl(SparseImpl, FlashAttentionImpl):
    supports_dcp = False


class SparseFlashAttentionMetadataBuilder(SparseBuilder, FlashAttentionMetadataBuilder):
    stock = FlashAttentionMetadataBuilder


class SparseFlashAttentionBackend(SparseBackend, FlashAttentionBackend):
    @staticmethod
    def get_impl_cls() -> type[SparseFlashAttentionImpl]:
        return SparseFlashAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[SparseFlashAttentionMetadataBuilder]:
        return SparseFlashAttentionMetadataBuilder


class SparseTritonAttentionImpl(SparseImpl, TritonAttentionImpl):
    pass


class SparseTritonAttentionMetadataBuilder(SparseBuilder, TritonAttentionMetadataBuilder):
    stock = TritonAttentionMetadataBuilder


class SparseTritonAttentionBackend(SparseBackend, TritonAttentionBackend):
    @staticmethod
    def get_impl_cls() -> type[SparseTritonAttentionImpl]:
        return SparseTritonAttentionImpl

    @staticmethod
    def get_builder_cls() -> type[SparseTritonAttentionMetadataBuilder]:
        return SparseTritonAttentionMetadataBuilder
