"""One attention layer: the stock attention, then the sparse requests' outputs."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from sparse_backend.backends.engine import engine_of
from sparse_backend.backends.regions import Regions
from sparse_backend.config import KEY, ConfigError
from sparse_backend.kernels.batch import Softmax, skip_tiles, split_cache
from sparse_backend.kernels.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from sparse_backend.backends.cpu.metadata import SparseCPUMetadata


class SparseCPUImpl(CPUAttentionBackendImpl):
    head_sizes: ClassVar[Container[int] | None] = None
    """Every size that the kernels don't refuse."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        vllm_config = get_current_vllm_config()
        engine, dtype = engine_of(vllm_config), vllm_config.model_config.dtype
        assert engine is not None
        assert isinstance(dtype, torch.dtype)
        self.engine, self.kernels = engine, engine.cpu_kernels
        self.shape = self.num_kv_heads, self.num_queries_per_kv, self.head_size, dtype
        self.join(sparse=False, first=False, block_stride=0)
        self.regions = Regions(self.split)

    def join(self, sparse: bool, first: bool, block_stride: int) -> None:
        """What the metadata builder knows: whether this layer is sparse, whether it is the model's first, and how its
        KV blocks are laid out, see `Heads.block_stride`. Raises ConfigError."""
        self.sparse, self.first = sparse, first
        self.heads = self.engine.heads(*self.shape, block_stride)
        if sparse:
            try:
                self.kernels.check(self.heads)
            except ValueError as error:
                raise ConfigError(f"Sparse attention: {error}; or remove {KEY} from additional_config.") from error

    @property
    def softmax(self) -> Softmax:
        """Once the weights are loaded. Sinks are among them, and not kept: weights may be loaded again."""
        sinks = None if self.sinks is None else self.sinks.detach().float().contiguous()
        return Softmax(self.scale, self.logits_soft_cap, sinks)

    def split(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `split_cache`."""
        use_huge_pages(kv_cache)
        return split_cache(kv_cache, self.heads)

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        if self.attn_type == AttentionType.DECODER:
            kv_cache = self.regions(kv_cache)[0]
        if self.heads.block_stride:
            content, tiles = self.heads.block_content, self.heads.block_tiles
            size = self.heads.kernel_block_tokens
            slot_mapping = skip_tiles(slot_mapping, content * size, tiles * size)
        super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)

    def forward(  # type: ignore[override]
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: SparseCPUMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the stock backend; kv_cache: [kernel blocks, kv_heads, kernel_block_tokens, 2 × head_size + a tile's
        share]."""
        rest = output, output_scale, output_block_scale
        if attn_metadata is None or self.attn_type != AttentionType.DECODER:
            return super().forward(layer, query, key, value, kv_cache, attn_metadata, *rest)
        cache, tiles = self.regions(kv_cache)
        if not (self.sparse and attn_metadata.all_sparse):
            metadata = attn_metadata if self.sparse else attn_metadata.dense or attn_metadata
            super().forward(layer, query, key, value, cache, metadata, *rest)
        if not self.sparse:
            return output
        batch = attn_metadata.first_batch if self.first else attn_metadata.batch
        requests, starts = attn_metadata.requests, attn_metadata.starts
        assert batch is not None
        assert requests is not None
        assert starts is not None
        if self.kv_sharing_target_layer_name is None:
            self.kernels.update_summaries(self.heads, batch, cache, tiles, requests, starts)
        if len(batch.requests):
            self.kernels.decode(self.heads, batch, query, cache, tiles, output, self.softmax)
        return output
