"""How vLLM's KV cache is laid out where CPU attention is sparse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from vllm.v1.attention.backend import MultipleOf
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
from vllm.v1.kv_cache_interface import AttentionSpec

from sparse_backend.backends.cpu.builder import SparseCPUMetadataBuilder
from sparse_backend.backends.cpu.layer import SparseCPUImpl
from sparse_backend.backends.cpu.layout import block_stride
from sparse_backend.backends.engine import Engine
from sparse_backend.constants import BLOCK, kernel_block_tokens


class SparseCPUBackend(CPUAttentionBackend):
    """Each engine has a subclass of its own: see `Engine.backend`."""

    engine: ClassVar[Engine]

    @classmethod
    def get_supported_kernel_block_sizes(cls, kv_cache_spec: Any = None) -> list[Any]:
        """A page is a kernel block, so that its keys and its values are contiguous; two pages, where they have 8.

        Hybrids split their KV blocks in the metadata builder instead: vLLM's CPU runner clears blocks that held a
        Mamba state before by their number, and takes numbers of KV blocks for those of kernel blocks.
        """
        if cls.engine.hybrid:
            return [MultipleOf(BLOCK)]
        return [kernel_block_tokens(cls.engine.config.page_size)]

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """Makes room for page summaries in every KV block, so that vLLM budgets for them.

        Layers that stay dense get it too: layers of one model share blocks, and blocks of one size only.
        """
        stride = block_stride(cls.engine, spec.num_kv_heads, spec.head_size)
        heads = cls.engine.heads(spec.num_kv_heads, 1, spec.head_size, spec.dtype, stride)
        content = (spec.head_size + spec.head_size_v) * spec.dtype.itemsize
        return replace(spec, state_content_bytes=content + heads.tile_bytes_per_token)

    @staticmethod
    def get_impl_cls() -> type[SparseCPUImpl]:
        return SparseCPUImpl

    @staticmethod
    def get_builder_cls() -> type[SparseCPUMetadataBuilder]:
        return SparseCPUMetadataBuilder
