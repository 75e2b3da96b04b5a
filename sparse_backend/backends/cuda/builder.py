"""Which requests decode sparsely in a step, and on how many pages: decided once, on the GPU, for all layers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from sparse_backend.backends.cuda.layer import SparseImpl
from sparse_backend.backends.cuda.metadata import SparseStep
from sparse_backend.backends.engine import engine_of, is_first
from sparse_backend.kernels import triton as kernels
from sparse_backend.request_budgets import step_budgets


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
        engine = engine_of(vllm_config)
        assert engine is not None
        self.engine = engine
        impls = {name: layer.impl for name, layer in engine.attention_layers(layer_names).items()}
        for name, impl in impls.items():
            if isinstance(impl, SparseImpl):
                impl.join(sparse=engine.dense_reasons[name] is None, first=is_first(name))
        engine.publish(kernels.tile_bytes)
        sparse = [engine.dense_reasons[name] is None for name in impls]
        self.any_sparse = any(sparse)
        self.dense_builder = self.stock(*arguments) if any(sparse) and not all(sparse) else None
        requests = max(
            vllm_config.scheduler_config.max_num_seqs, vllm_config.compilation_config.max_cudagraph_capture_size or 0
        )
        requests = -(-requests // 16) * 16  # so that every row is aligned, for which Triton compiles apart
        # CUDA graphs remember these addresses: budgets in tokens, in pages, and in pages of the first layer.
        self.budgets = torch.zeros(3, requests, dtype=torch.int32, device=device)
        self.page_budgets = torch.zeros(2, requests, dtype=torch.int32, device=device)
        self.dense_lens = torch.zeros(requests, dtype=torch.int32, device=device)
        # Of requests with the same first pages, and what each has in common with the others of its wave.
        self.bundles = torch.zeros(requests, kernels.MEMBERS, dtype=torch.int32, device=device)
        self.shared_pages = torch.zeros(requests, dtype=torch.int32, device=device)
        self.common = torch.zeros(requests, kernels.MAX_WAVE, dtype=torch.int32, device=device)
        self.staged: list[int] = []
        self.warm_up([impl for impl in impls.values() if isinstance(impl, SparseImpl) and impl.sparse])
        self.page_counts = lru_cache(1024)(self._page_counts)

    def warm_up(self, layers: list[SparseImpl]) -> None:
        """Compiles all kernels before requests come: none of them is compiled differently for another batch."""
        lens = self.dense_lens[:1]
        self.plan(torch.zeros(2).to(lens), lens.clone(), 0)
        variants = {(impl.heads, impl.softmax.soft_cap, impl.softmax.sinks is None): impl for impl in layers}
        for impl in variants.values():
            if impl.work is not None:
                kernels.warm_up(impl.heads, impl.softmax, impl.work)

    @classmethod
    def get_cudagraph_support(cls, vllm_config: VllmConfig, kv_cache_spec: Any) -> AttentionCGSupport:
        """At most batches of equal query lengths: the summary update's launch depends on the longest query."""
        support: AttentionCGSupport = super().get_cudagraph_support(vllm_config, kv_cache_spec)  # type: ignore[misc]
        return min(support, AttentionCGSupport.UNIFORM_BATCH, key=lambda s: s.value)

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> Any:
        """A graph has the sparse launches, whatever the lengths it is captured with."""
        metadata: Any = super().build_for_cudagraph_capture(common_attn_metadata)  # type: ignore[misc]
        if hasattr(metadata, "sparse"):
            metadata.sparse = replace(metadata.sparse, any_rows=True)
        return metadata

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> Any:
        """Once a step: decides which requests decode sparsely, and on how many pages. No host sync."""
        common, requests = common_attn_metadata, common_attn_metadata.num_reqs
        if not self.any_sparse or common.causal is not True:
            return super().build(common_prefix_len, common, fast_build)  # type: ignore[misc]
        config = self.engine.config
        wanted = step_budgets(self.engine, common).tolist()
        self.stage(wanted)
        seq_lens = common.seq_lens[:requests]
        start = common.query_start_loc[: requests + 1]
        self.plan(start, seq_lens, config.min_context)
        shortened = replace(common, seq_lens=self.dense_lens[:requests])
        metadata = super().build(common_prefix_len, shortened, fast_build)  # type: ignore[misc]
        bundles, shared_pages = self.bundles[:requests], self.shared_pages[:requests]
        steps = [
            kernels.DecodeStep(start, seq_lens, common.block_table_tensor, budget, bundles, shared_pages)
            for budget in self.page_budgets[:, :requests]
        ]
        dense = self.dense_builder and self.dense_builder.build(common_prefix_len, common, fast_build)
        # No request is longer than max_seq_len, so without a budget below it the launches would find nothing to do.
        smallest = min(filter(None, wanted), default=0)
        any_rows = bool(smallest) and common.max_seq_len > max(smallest, config.min_context)
        if any_rows:
            kernels.bundle_requests(steps[0], self.common, config.page_size)
        metadata.sparse = SparseStep(steps[0], steps[1], common.max_query_len, any_rows, dense)
        return metadata

    def plan(self, start: torch.Tensor, seq_lens: torch.Tensor, min_context: int) -> None:
        written = self.page_budgets, self.dense_lens, self.shared_pages
        kernels.plan_step(start, seq_lens, self.budgets, *written, min_context)

    def stage(self, wanted: list[int]) -> None:
        """Brings the budgets of a batch to the GPU, where they differ from those of the step before."""
        if wanted == self.staged:
            return
        rows = torch.tensor(list(zip(*map(self.page_counts, wanted), strict=True)), dtype=torch.int32)
        pinned = rows.pin_memory() if self.budgets.is_cuda else rows
        self.budgets[:, : len(wanted)].copy_(pinned, non_blocking=True)
        self.staged = wanted

    def _page_counts(self, budget: int) -> tuple[int, int, int]:
        """A budget in tokens, what it is in pages of most layers, and in pages of the first layer."""
        first, rest = self.engine.layer_budgets(budget)
        page_size = self.engine.config.page_size
        return budget, rest // page_size, first // page_size
