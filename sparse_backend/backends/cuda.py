"""vLLM's CUDA attention backends, with decode steps of long requests made sparse.

Like the CPU backend: prefill, requests within their budget and layers that can't be sparse are the stock backend's.
A sparse request costs one token there, whose output is overwritten. Which requests are sparse is decided on the GPU,
from buffers that stay in place, so that whole decode steps can be CUDA graphs.

The plugin registers `FLASH_ATTN`, `FLASHINFER`, `TRITON_ATTN` and `CUSTOM` of this module. Each resolves to the stock
backend unless the engine being built asks for sparse attention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig, get_current_vllm_config, get_current_vllm_config_or_none
from vllm.config import get_layers_from_vllm_config as layers_of
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.utils.import_utils import resolve_obj_by_qualname
from vllm.v1.attention.backend import AttentionCGSupport, AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.flash_attn import (
    FlashAttentionBackend,
    FlashAttentionImpl,
    FlashAttentionMetadataBuilder,
)
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.backends.triton_attn import (
    TritonAttentionBackend,
    TritonAttentionImpl,
    TritonAttentionMetadataBuilder,
)
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.kv_cache_layout import KVCacheLayout

from sparse_backend.backends.engine import check_engine
from sparse_backend.config import BLOCK, KEY, ConfigError, SparseAttentionConfig, from_additional_config
from sparse_backend.kernels import triton as kernels
from sparse_backend.kernels.batch import heads_of
from sparse_backend.request_budgets import row_budgets
from sparse_backend.selection import get_selector

HEAD_SIZES = range(32, 257, 8)  # what the Triton kernels keep in registers, and what leaves tiles aligned


def __getattr__(name: str) -> type[Any]:
    replacements = {
        "FLASH_ATTN": SparseFlashAttentionBackend,
        "FLASHINFER": SparseFlashAttentionBackend,
        "TRITON_ATTN": SparseTritonAttentionBackend,
        "CUSTOM": SparseFlashAttentionBackend,
    }
    if name not in replacements:
        raise AttributeError(name)
    vllm_config = get_current_vllm_config_or_none()
    config = vllm_config and from_additional_config(vllm_config.additional_config)
    if vllm_config is not None and config:
        check_engine(vllm_config, refusals(vllm_config, config))
        SparseBackend.config = config
        return replacements[name]
    if name == "CUSTOM":
        raise ConfigError(f"The attention backend CUSTOM is sparse attention: put {KEY} in additional_config.")
    stock: type[Any] = resolve_obj_by_qualname(AttentionBackendEnum[name].value)
    return stock


def refusals(vllm_config: VllmConfig, config: SparseAttentionConfig) -> list[tuple[bool, str]]:
    """What `check_engine` refuses on CUDA, beside what it refuses everywhere."""
    return [
        (
            config.selector not in kernels.SELECTORS,
            f"has no CUDA kernels for the selector {config.selector}: choose one of {', '.join(kernels.SELECTORS)}",
        ),
        (
            vllm_config.model_config.rswa_window is not None,
            "does not support reference sliding windows",
        ),
        (
            vllm_config.cache_config.kv_sharing_fast_prefill,
            "does not support fast prefill of KV-sharing layers: remove --kv-sharing-fast-prefill",
        ),
    ]


class SparseBackend:
    """What the two backends below add to their stock ones."""

    config: ClassVar[SparseAttentionConfig]

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
    def supports_kv_connector(cls) -> bool:
        return False

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """Makes room for page summaries in every KV block, so that vLLM budgets for them."""
        heads = heads_of(cls.config, spec.num_kv_heads, 1, spec.head_size, spec.dtype)
        content = (spec.head_size + spec.head_size_v) * spec.dtype.itemsize
        return replace(spec, state_content_bytes=content + kernels.tile_bytes_per_token(heads))


@dataclass
class SparseStep:
    """What a step's metadata carries for sparse layers, as its attribute `sparse`."""

    step: kernels.DecodeStep
    first_step: kernels.DecodeStep  # the model's first layer has a budget of its own
    max_query_len: int
    dense: Any  # stock metadata for layers of the same group that stay dense; None where there are none


class SparseBuilder:
    """Builds the stock metadata, in which sparse requests have one token of context, and attaches a `SparseStep`."""

    stock: ClassVar[type[Any]]

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        arguments = kv_cache_spec, layer_names, vllm_config, device
        super().__init__(*arguments)  # type: ignore[call-arg]
        # Both would reuse metadata whose sparse part belongs to another step or block table.
        self.supports_update_block_table = self.supports_draft_decode_metadata_update = False
        self.sparse_config = vllm_config
        self.layers = vllm_config.model_config.hf_text_config.num_hidden_layers
        layers = layers_of(vllm_config, Attention, layer_names)
        sparse = [isinstance(layer.impl, SparseImpl) and layer.impl.sparse for layer in layers.values()]
        self.any_sparse = any(sparse)
        self.dense_builder = self.stock(*arguments) if any(sparse) and not all(sparse) else None
        for name, layer in layers.items():
            if isinstance(layer.impl, SparseImpl):
                layer.impl.first = extract_layer_index(name) == 0
        requests = max(
            vllm_config.scheduler_config.max_num_seqs, vllm_config.compilation_config.max_cudagraph_capture_size or 0
        )
        # CUDA graphs remember these addresses: budgets in tokens, in pages, and in pages of the first layer.
        self.budgets = torch.zeros(3, requests, dtype=torch.int32, device=device)
        self.page_budgets = torch.zeros(2, requests, dtype=torch.int32, device=device)
        self.dense_lens = torch.zeros(requests, dtype=torch.int32, device=device)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: Any) -> AttentionCGSupport:
        """At most batches of equal query lengths: the summary update's launch depends on the longest query."""
        support: AttentionCGSupport = super().get_cudagraph_support(vllm_config, kv_cache_spec)  # type: ignore[misc]
        return min(support, AttentionCGSupport.UNIFORM_BATCH, key=lambda s: s.value)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Any:
        """Once a step: decides which requests decode sparsely, and on how many pages. No host sync."""
        common, requests = common_attn_metadata, common_attn_metadata.num_reqs
        if not self.any_sparse or common.causal is not True:
            return super().build(common_prefix_len, common, fast_build)  # type: ignore[misc]
        config = SparseBackend.config
        device = self.budgets.device
        budgets = self.budgets[:, :requests]
        wanted = row_budgets(self.sparse_config, config, requests, common.req_idx).tolist()
        staged = torch.tensor(list(zip(*map(self.page_counts, wanted), strict=True)), dtype=torch.int32)
        budgets.copy_(staged.pin_memory() if device.type == "cuda" else staged, non_blocking=True)
        seq_lens = common.seq_lens[:requests]
        start = common.query_start_loc[: requests + 1]
        sparse = (start.diff() == 1) & (budgets[0] > 0) & (seq_lens > budgets[0].clamp(min=config.min_context))
        dense_lens = self.dense_lens[:requests].copy_(seq_lens).masked_fill_(sparse, 1)
        torch.mul(budgets[1:], sparse, out=self.page_budgets[:, :requests])
        metadata = super().build(common_prefix_len, replace(common, seq_lens=dense_lens), fast_build)  # type: ignore[misc]
        steps = [
            kernels.DecodeStep(start, seq_lens, common.block_table_tensor, self.page_budgets[i, :requests])
            for i in (0, 1)
        ]
        dense = self.dense_builder and self.dense_builder.build(common_prefix_len, common, fast_build)
        metadata.sparse = SparseStep(steps[0], steps[1], common.max_query_len, dense)
        return metadata

    def page_counts(self, budget: int) -> tuple[int, int, int]:
        """A budget in tokens, what it is in pages of most layers, and in pages of the first layer."""
        config = SparseBackend.config
        selector = get_selector(config.selector)
        rest, first = (selector.layer_budget(budget, self.layers, first) // config.page_size for first in (False, True))
        return budget, rest, first


@cache
def workspace(
    config: SparseAttentionConfig,
    kv_heads: int,
    group: int,
    head_size: int,
    dtype: torch.dtype,
    requests: int,
    max_tokens: int,
    device: torch.device,
) -> kernels.Workspace:
    """Shared by all layers of one shape; made while the model loads, so that vLLM's memory profile includes it."""
    heads = heads_of(config, kv_heads, group, head_size, dtype)
    return kernels.Workspace.allocate(heads, requests, max_tokens, max_tokens, device)


class SparseImpl:
    """The stock attention, then the sparse requests' outputs over it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stock: Any = self
        stock.supports_quant_query_input = False
        vllm_config = get_current_vllm_config()
        model, config = vllm_config.model_config, SparseBackend.config
        assert isinstance(model.dtype, torch.dtype)
        # A windowed layer reads little, and the kernels know neither biases nor caps on logits.
        self.decoder = stock.attn_type == AttentionType.DECODER
        self.sparse = (
            self.decoder
            and stock.sliding_window == (-1, -1)
            and stock.alibi_slopes is None
            and not stock.logits_soft_cap
            and stock.sinks is None
            and getattr(stock, "chunk_lookback", -1) < 0
            and stock.head_size in HEAD_SIZES
        )
        self.first = False  # the model's first layer; the metadata builder knows
        self.writes_cache = stock.kv_sharing_target_layer_name is None
        shape = stock.num_kv_heads, stock.num_queries_per_kv, stock.head_size, model.dtype
        self.heads = heads_of(config, *shape)
        self.work: kernels.Workspace | None = None
        if self.sparse:
            requests = vllm_config.scheduler_config.max_num_seqs
            device = torch.device(vllm_config.device_config.device_type)
            self.work = workspace(config, *shape, requests, model.max_model_len, device)
        self._kv_cache: torch.Tensor | None = None
        self._regions: tuple[torch.Tensor, torch.Tensor] | None = None

    def regions(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, and summaries, of this layer's KV cache: see `split_blocks`."""
        if self._kv_cache is not kv_cache or self._regions is None:
            self._kv_cache, self._regions = kv_cache, kernels.split_blocks(kv_cache, self.heads)
        return self._regions

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
        if sparse is None or self.work is None:
            if sparse is not None:
                attn_metadata = sparse.dense
            stock.forward(layer, query, key, value, cache, attn_metadata, *rest)
            return output
        stock.forward(layer, query, key, value, cache, attn_metadata, *rest)
        step = sparse.first_step if self.first else sparse.step
        if self.writes_cache:
            kernels.update_summaries(self.heads, step, cache, tiles, sparse.max_query_len)
        scale: float = self.scale  # type: ignore[attr-defined]
        kernels.decode(self.heads, step, query, cache, tiles, output.view(query.shape), scale, self.work)
        return output

    def fused_output_quant_supported(self, quant_key: Any) -> bool:
        return False


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
