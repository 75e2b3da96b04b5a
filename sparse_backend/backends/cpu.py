"""vLLM's CPU attention backend, with decode steps of long requests made sparse.

Everything else is the stock backend: prefill, requests within their budget, sliding-window layers. With pages of 32
and 64 tokens those give the stock backend's results bit for bit. With 8 and 16 its kernel is the variant for small
blocks, and the bits are the same as long as the context fits into one of its tiles, some 1,000 tokens: beyond, where a
tile ends depends on the variant and on the L2 cache, and results are equal to rounding.

`Backend` is what the plugin registers. It resolves to the stock backend unless the engine being built asks for
sparse attention.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig, get_current_vllm_config, get_layers_from_vllm_config
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.v1.attention.backend import AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)
from vllm.v1.kv_cache_interface import AttentionSpec

from sparse_backend.backends.engine import check_engine
from sparse_backend.config import BLOCK, KEY, ConfigError, SparseAttentionConfig, from_additional_config, row_tokens
from sparse_backend.kernels import DecodeBatch, Kernels, cpu_kernels
from sparse_backend.kernels.batch import heads_of, skip_tiles, split_cache
from sparse_backend.kernels.huge_pages import use_huge_pages
from sparse_backend.request_budgets import row_budgets
from sparse_backend.selection import get_selector

SUPPORTED_ISAS = ("vec", "vec16")  # those whose key layout the kernels read


def __getattr__(name: str) -> type[CPUAttentionBackend]:
    if name != "Backend":
        raise AttributeError(name)
    vllm_config = get_current_vllm_config()
    config = from_additional_config(vllm_config.additional_config)
    if config is None:
        return CPUAttentionBackend
    check_engine(vllm_config)
    SparseCPUBackend.config, SparseCPUBackend.engine = config, vllm_config
    return SparseCPUBackend


def differ_in_shape(layers: Iterable[Attention]) -> bool:
    """Whether layers of different shapes take blocks of the same memory, as those with and without a window do."""
    known = {(layer.num_kv_heads, layer.head_size, layer.sliding_window is not None) for layer in layers}
    return len({shape[:2] for shape in known}) > 1 and len({shape[2] for shape in known}) > 1


class SparseCPUBackend(CPUAttentionBackend):
    config: ClassVar[SparseAttentionConfig]
    engine: ClassVar[VllmConfig]

    @classmethod
    def get_supported_kernel_block_sizes(cls, kv_cache_spec: Any = None) -> list[Any]:
        """A page is a kernel block, so that its keys and its values are contiguous; two pages, where they have 8."""
        return [row_tokens(cls.config.page_size)]

    @classmethod
    def customize_spec(cls, spec: AttentionSpec) -> AttentionSpec:
        """Makes room for page summaries in every KV block, so that vLLM budgets for them.

        Layers that stay dense get it too: layers of one model share blocks, and blocks of one size only.
        """
        rows = cls.block_rows(spec.num_kv_heads, spec.head_size)
        heads = heads_of(cls.config, spec.num_kv_heads, 1, spec.head_size, spec.dtype, rows)
        content = (spec.head_size + spec.head_size_v) * spec.dtype.itemsize
        return replace(spec, state_content_bytes=content + heads.tile_bytes_per_token)

    @classmethod
    def block_rows(cls, kv_heads: int, head_size: int) -> int:
        """`Heads.block_rows` of this engine's layers of one shape. Raises ConfigError.

        vLLM makes blocks of one size in bytes by giving more tokens to those of layers that take less for each.
        """
        layers = get_layers_from_vllm_config(cls.engine, Attention).values()
        if not differ_in_shape(layers):
            return 0
        widest = max(layer.num_kv_heads * layer.head_size for layer in layers)
        if widest % (kv_heads * head_size):
            raise ConfigError(
                f"Sparse attention cannot share KV blocks between layers of {widest} and of {kv_heads * head_size} "
                f"dimensions in all KV heads, which is no divisor: remove {KEY} from additional_config."
            )
        tokens = cls.engine.cache_config.block_size * widest // (kv_heads * head_size)
        return tokens // row_tokens(cls.config.page_size) + tokens // BLOCK

    @staticmethod
    def get_impl_cls() -> type[SparseCPUImpl]:
        return SparseCPUImpl

    @staticmethod
    def get_builder_cls() -> type[SparseCPUMetadataBuilder]:
        return SparseCPUMetadataBuilder


@dataclass
class SparseCPUMetadata(CPUAttentionMetadata):
    """The stock metadata, in which sparse requests have one token of context, and what the sparse kernels need."""

    batch: DecodeBatch | None = None
    first_batch: DecodeBatch | None = None  # the model's first layer has a budget of its own
    all_sparse: bool = False
    rows: torch.Tensor | None = None  # int32 [batch] 0, 1, 2, ...
    starts: torch.Tensor | None = None  # int32 [batch] tokens each request had before this step
    dense: CPUAttentionMetadata | None = None  # for layers of the same group that stay dense, where it differs


class SparseCPUMetadataBuilder(CPUAttentionMetadataBuilder):
    def __init__(
        self,
        kv_cache_spec: AttentionSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        if self.isa not in SUPPORTED_ISAS:
            raise ConfigError(f"Sparse attention cannot read the KV cache of this CPU ({self.isa}): remove {KEY}.")
        block_rows = SparseCPUBackend.block_rows(kv_cache_spec.num_kv_heads, kv_cache_spec.head_size)
        config, dtype = SparseCPUBackend.config, kv_cache_spec.dtype
        self.heads = heads_of(config, kv_cache_spec.num_kv_heads, 1, kv_cache_spec.head_size, dtype, block_rows)
        layers = get_layers_from_vllm_config(vllm_config, Attention, layer_names)
        kinds = [isinstance(layer.impl, SparseCPUImpl) and layer.impl.sparse for layer in layers.values()]
        self.any_sparse, self.any_dense = any(kinds), not all(kinds)
        self.layers = vllm_config.model_config.hf_text_config.num_hidden_layers
        self.has_first = False
        for name, layer in layers.items():
            if isinstance(layer.impl, SparseCPUImpl):
                layer.impl.first = extract_layer_index(name) == 0
                self.has_first |= layer.impl.first
                layer.impl.use_blocks(block_rows)

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> SparseCPUMetadata:
        """Once a step: decides which requests decode sparsely, and on how many tokens."""
        config, common = SparseCPUBackend.config, common_attn_metadata
        if self.heads.block_rows:
            content, tiles = self.heads.content_rows, self.heads.tile_rows
            table = skip_tiles(common.block_table_tensor, content, tiles)
            common = replace(common, block_table_tensor=table)
        selector = get_selector(config.selector)
        seq_lens = common.seq_lens
        new = common.query_start_loc[1:] - common.query_start_loc[:-1]
        budgets = row_budgets(self.vllm_config, config, common.num_reqs)
        sparse = (new == 1) & (budgets > 0) & (seq_lens > budgets.clamp(min=config.min_context))
        if common.causal is not True or not self.any_sparse:
            sparse.zero_()
        rows = sparse.nonzero().squeeze(1).int()
        dense = None
        if len(rows):
            if self.any_dense:
                dense = super().build(common_prefix_len, common, fast_build)
            # In the stock kernel a sparse request costs one token; its output is overwritten afterwards.
            common = replace(common, seq_lens=torch.where(sparse, 1, seq_lens))
        stock = super().build(common_prefix_len, common, fast_build)
        chosen = budgets[rows].tolist()

        def batch(first: bool) -> DecodeBatch:
            layer = [selector.layer_budget(b, self.layers, first) for b in chosen]
            keys = [selector.key_tokens(b, config.page_size) for b in layer]
            return DecodeBatch(
                seq_lens=seq_lens,
                block_table=stock.block_table,
                rows=rows,
                tokens=common.query_start_loc[rows].contiguous(),
                key_tokens=torch.tensor(keys, dtype=torch.int32),
                value_tokens=torch.tensor([selector.value_tokens(b) for b in layer], dtype=torch.int32),
            )

        return SparseCPUMetadata(
            **vars(stock),
            batch=batch(first=False),
            first_batch=batch(first=True) if self.has_first else None,
            all_sparse=len(rows) == common.num_reqs,
            rows=torch.arange(common.num_reqs, dtype=torch.int32),
            starts=(seq_lens - new).int(),
            dense=dense,
        )


class SparseCPUImpl(CPUAttentionBackendImpl):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model_dtype = get_current_vllm_config().model_config.dtype
        assert isinstance(model_dtype, torch.dtype)
        self.shape = self.num_kv_heads, self.num_queries_per_kv, self.head_size, model_dtype
        self.use_blocks(0)
        # A windowed layer reads little, and the kernels know neither biases nor caps on logits.
        self.sparse = (
            self.attn_type == AttentionType.DECODER
            and self.sliding_window == -1
            and self.alibi_slopes is None
            and not self.logits_soft_cap
            and self.sinks is None
            and self.head_size % 16 == 0
        )
        self.first = False  # the model's first layer; the metadata builder knows
        self.kernels: Kernels = cpu_kernels()
        self._kv_cache: torch.Tensor | None = None
        self._regions: tuple[torch.Tensor, torch.Tensor] | None = None

    def use_blocks(self, block_rows: int) -> None:
        """The metadata builder knows how this layer's blocks are laid out: see `Heads.block_rows`."""
        self.heads = heads_of(SparseCPUBackend.config, *self.shape, block_rows)

    def regions(self, kv_cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, and summaries, of this layer's KV cache: see `split_cache`."""
        if self._kv_cache is not kv_cache or self._regions is None:
            use_huge_pages(kv_cache)
            self._kv_cache, self._regions = kv_cache, split_cache(kv_cache, self.heads)
        return self._regions

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
        if self.heads.block_rows:
            content, tiles = self.heads.content_rows, self.heads.tile_rows
            slot_mapping = skip_tiles(slot_mapping, content * self.heads.row_tokens, tiles * self.heads.row_tokens)
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
        """As the stock backend; kv_cache: [rows, kv_heads, row_tokens, 2 × head_size + a tile's share]."""
        if attn_metadata is None or self.attn_type != AttentionType.DECODER:
            return super().forward(
                layer, query, key, value, kv_cache, attn_metadata, output, output_scale, output_block_scale
            )
        cache, tiles = self.regions(kv_cache)
        if not (self.sparse and attn_metadata.all_sparse):
            super().forward(
                layer,
                query,
                key,
                value,
                cache,
                attn_metadata if self.sparse else attn_metadata.dense or attn_metadata,
                output,
                output_scale,
                output_block_scale,
            )
        if not self.sparse:
            return output
        batch = attn_metadata.first_batch if self.first else attn_metadata.batch
        rows, starts = attn_metadata.rows, attn_metadata.starts
        assert batch is not None
        assert rows is not None
        assert starts is not None
        if self.kv_sharing_target_layer_name is None:
            self.kernels.update_summaries(self.heads, batch, cache, tiles, rows, starts)
        if len(batch.rows):
            self.kernels.decode(self.heads, batch, query, cache, tiles, output, self.scale)
        return output
