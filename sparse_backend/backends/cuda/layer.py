"""One attention layer: the stock attention, then the sparse requests' outputs."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import AttentionType

from sparse_backend.backends.engine import engine_of
from sparse_backend.backends.regions import Regions
from sparse_backend.kernels import triton as kernels
from sparse_backend.kernels.batch import Softmax

if TYPE_CHECKING:
    from sparse_backend.backends.cuda.metadata import SparseStep


class SparseImpl:
    """The stock attention, then the sparse requests' outputs over it."""

    head_sizes: ClassVar[Container[int]] = range(32, 257, 8)
    """What the Triton kernels keep in registers, and what leaves tiles aligned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stock: Any = self
        stock.supports_quant_query_input = False
        vllm_config = get_current_vllm_config()
        engine, model = engine_of(vllm_config), vllm_config.model_config
        assert engine is not None
        assert isinstance(model.dtype, torch.dtype)
        self.decoder = stock.attn_type == AttentionType.DECODER
        self.writes_cache = stock.kv_sharing_target_layer_name is None
        shape = stock.num_kv_heads, stock.num_queries_per_kv, stock.head_size, model.dtype
        self.heads = engine.heads(*shape)
        self.join(sparse=False, first=False)
        # `dense_reason` says the same, once the layer is built.
        may_be_sparse = stock.sliding_window == (-1, -1) and stock.head_size in self.head_sizes
        if may_be_sparse and stock.alibi_slopes is None and self.heads not in engine.scratch:
            # Shared by all layers of one shape; made while the model loads, so that vLLM's memory profile includes it.
            # A draft model may know shorter contexts only, and yet drafts for requests of the engine's longest.
            requests = vllm_config.scheduler_config.max_num_seqs
            tokens = max(model.max_model_len, engine.vllm_config.model_config.max_model_len)
            device = torch.device(vllm_config.device_config.device_type)
            engine.scratch[self.heads] = kernels.Workspace.allocate(self.heads, requests, tokens, tokens, device)
        self.work: kernels.Workspace | None = engine.scratch.get(self.heads)
        self.regions = Regions(lambda kv_cache: kernels.split_blocks(kv_cache, self.heads))

    def join(self, sparse: bool, first: bool) -> None:
        """What the metadata builder knows: whether this layer is sparse, and whether it is the model's first."""
        self.sparse, self.first = sparse, first

    @cached_property
    def softmax(self) -> Softmax:
        """Once the weights are loaded. Sinks are among them, and no copy: weights may be loaded again."""
        stock: Any = self
        sinks = None if stock.sinks is None else stock.sinks.detach()
        return Softmax(stock.scale, stock.logits_soft_cap or 0.0, sinks)

    def do_kv_cache_update(
        self, layer: Any, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
    ) -> None:
        stock: Any = super()
        stock.do_kv_cache_update(
            layer, key, value, self.regions(kv_cache)[0] if self.decoder else kv_cache, slot_mapping
        )

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: Any,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the stock backend; kv_cache: [blocks, kv_heads, BLOCK, 2 × head_size + a tile's share]."""
        stock: Any = super()
        rest = output, output_scale, output_block_scale
        if attn_metadata is None or not self.decoder:
            result: torch.Tensor = stock.forward(layer, query, key, value, kv_cache, attn_metadata, *rest)
            return result
        cache, tiles = self.regions(kv_cache)
        sparse: SparseStep | None = getattr(attn_metadata, "sparse", None)
        if sparse is None or self.work is None or not self.sparse:
            if sparse is not None:
                attn_metadata = sparse.dense
            stock.forward(layer, query, key, value, cache, attn_metadata, *rest)
            return output
        stock.forward(layer, query, key, value, cache, attn_metadata, *rest)
        step = sparse.first_step if self.first else sparse.step
        if self.writes_cache:
            kernels.update_summaries(self.heads, step, cache, tiles, sparse.max_query_len)
        if sparse.any_rows:
            kernels.decode(self.heads, step, query, cache, tiles, output.view(query.shape), self.softmax, self.work)
        return output

    def fused_output_quant_supported(self, quant_key: Any) -> bool:
        return False
