"""Which requests decode sparsely in a step, and on how many tokens: decided once, read by every layer."""

from __future__ import annotations

from dataclasses import replace

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder, _get_attn_isa
from vllm.v1.kv_cache_interface import AttentionSpec

from sparse_backend.backends.cpu.layer import SparseCPUImpl
from sparse_backend.backends.cpu.layout import block_stride
from sparse_backend.backends.cpu.metadata import SparseCPUMetadata
from sparse_backend.backends.engine import engine_of, is_first
from sparse_backend.config import KEY, ConfigError
from sparse_backend.constants import kernel_block_tokens
from sparse_backend.kernels import DecodeBatch
from sparse_backend.kernels.batch import skip_tiles
from sparse_backend.request_budgets import step_budgets

SUPPORTED_ISAS = ("vec", "vec16")  # those whose key layout the kernels read
PORTABLE = {"amx": "vec"}  # such a kernel for CPUs on which vLLM takes another with pages of 32 or 64 tokens


class SparseCPUMetadataBuilder(CPUAttentionMetadataBuilder):
    def __init__(
        self,
        kv_cache_spec: AttentionSpec,
        layer_names: list[str],
        vllm_config: VllmConfig,
        device: torch.device,
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        engine = engine_of(vllm_config)
        assert engine is not None
        self.engine = engine
        if engine.hybrid:
            size = kernel_block_tokens(engine.config.page_size)
            assert isinstance(self.dtype, torch.dtype)
            self.isa = _get_attn_isa(self.dtype, size, self.head_dim, self.kv_cache_dtype)
        self.isa = PORTABLE.get(self.isa, self.isa)
        self._set_isa_to_layers(layer_names)
        if self.isa not in SUPPORTED_ISAS:
            raise ConfigError(f"Sparse attention cannot read the KV cache of this CPU ({self.isa}): remove {KEY}.")
        shape = kv_cache_spec.num_kv_heads, kv_cache_spec.head_size
        stride = block_stride(engine, *shape)
        self.heads = engine.heads(shape[0], 1, shape[1], kv_cache_spec.dtype, stride)
        impls = {name: layer.impl for name, layer in engine.attention_layers(layer_names).items()}
        for name, impl in impls.items():
            if isinstance(impl, SparseCPUImpl):
                impl.join(sparse=engine.dense_reasons[name] is None, first=is_first(name), block_stride=stride)
        engine.publish(lambda heads: heads.tile_bytes)
        sparse = [name for name in impls if engine.dense_reasons[name] is None]
        self.any_sparse, self.any_dense = bool(sparse), len(sparse) < len(impls)
        self.has_first = any(map(is_first, sparse))

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> SparseCPUMetadata:
        """Once a step: decides which requests decode sparsely, and on how many tokens."""
        config, common = self.engine.config, common_attn_metadata
        if self.engine.hybrid:
            within = torch.arange(self.heads.block_content, dtype=torch.int32)
            table = (common.block_table_tensor[:, :, None] * self.heads.block_stride + within).flatten(1)
            common = replace(common, block_table_tensor=table)
        elif self.heads.block_stride:
            table = skip_tiles(common.block_table_tensor, self.heads.block_content, self.heads.block_tiles)
            common = replace(common, block_table_tensor=table)
        seq_lens = common.seq_lens
        new = common.query_start_loc[1:] - common.query_start_loc[:-1]
        budgets = step_budgets(self.engine, common)
        sparse = (new == 1) & (budgets > 0) & (seq_lens > budgets.clamp(min=config.min_context))
        if common.causal is not True or not self.any_sparse:
            sparse.zero_()
        requests = sparse.nonzero().squeeze(1).int()
        dense = None
        if len(requests):
            if self.any_dense:
                dense = super().build(common_prefix_len, common, fast_build)
            # In the stock kernel a sparse request costs one token; its output is overwritten afterwards.
            common = replace(common, seq_lens=torch.where(sparse, 1, seq_lens))
        stock = super().build(common_prefix_len, common, fast_build)
        layer_budgets = [self.engine.layer_budgets(budget) for budget in budgets[requests].tolist()]

        def batch(chosen: list[int]) -> DecodeBatch:
            selector = self.engine.selector
            keys = [selector.key_tokens(budget, config.page_size) for budget in chosen]
            return DecodeBatch(
                seq_lens=seq_lens,
                block_table=stock.block_table,
                requests=requests,
                tokens=common.query_start_loc[requests].contiguous(),
                key_tokens=torch.tensor(keys, dtype=torch.int32),
                value_tokens=torch.tensor([selector.value_tokens(budget) for budget in chosen], dtype=torch.int32),
            )

        return SparseCPUMetadata(
            **vars(stock),
            batch=batch([others for _, others in layer_budgets]),
            first_batch=batch([first for first, _ in layer_budgets]) if self.has_first else None,
            all_sparse=len(requests) == common.num_reqs,
            requests=torch.arange(common.num_reqs, dtype=torch.int32),
            starts=(seq_lens - new).int(),
            dense=dense,
        )
