"""The CUDA backend without a GPU: its Triton kernels in the interpreter, and a torch stand-in for vLLM's own kernel."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")
pytest.importorskip("triton")

from vllm.sampling_params import SamplingParams
from vllm.v1.attention.backend import AttentionCGSupport, AttentionType, CommonAttentionMetadata
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
from vllm.v1.attention.backends.triton_attn import TritonAttentionBackend, TritonAttentionImpl
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheTensor, create_kv_cache_views

from sparse_backend.backends import cuda
from sparse_backend.backends.cuda import layer as cuda_layer
from sparse_backend.backends.cuda.backend import SparseFlashAttentionBackend, SparseTritonAttentionBackend
from sparse_backend.backends.engine import Engine
from sparse_backend.config import ConfigError, SparseAttentionConfig
from sparse_backend.constants import BLOCK, pages
from sparse_backend.kernels.batch import Softmax
from sparse_backend.kernels.triton import layout, split_blocks
from sparse_backend.request_budgets import RequestBudgets
from tests.sparse_backend.cuda_engines import BUDGET, HEAD_SIZE, KV_HEADS, QUERIES_PER_KV, engine
from tests.sparse_backend.gpu_caches import Paged


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Resolves a registered name as vLLM does, for an engine."""

    def resolved(name: str, vllm_config: Any) -> Any:
        monkeypatch.setattr(cuda, "get_current_vllm_config_or_none", lambda: vllm_config)
        monkeypatch.setattr(cuda_layer, "get_current_vllm_config", lambda: vllm_config)
        return getattr(cuda, name)

    monkeypatch.setattr(layout, "SMS", 4)  # the interpreter is slow
    return resolved


@pytest.mark.parametrize("additional_config", [{}, {"sparse_attention": {"enabled": False}}])
def test_engines_that_do_not_ask_for_it_get_the_stock_backend(resolve: Any, additional_config: Any) -> None:
    assert resolve("FLASH_ATTN", engine(additional_config)) is FlashAttentionBackend
    assert resolve("TRITON_ATTN", engine(additional_config)) is TritonAttentionBackend
    assert resolve("FLASH_ATTN", None) is FlashAttentionBackend
    with pytest.raises(ConfigError, match="put sparse_attention in additional_config"):
        resolve("CUSTOM", engine(additional_config))


def test_engines_that_ask_for_it_get_a_sparse_one_whatever_vllm_would_choose(resolve: Any) -> None:
    for name in ("FLASH_ATTN", "FLASHINFER", "CUSTOM"):
        assert resolve(name, engine()).__base__ is SparseFlashAttentionBackend
    assert resolve("TRITON_ATTN", engine()).__base__ is SparseTritonAttentionBackend


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_config__use_mla": True}, "does not support MLA"),
        ({"model_config__is_encoder_decoder": True}, "does not support encoder-decoder"),
        ({"model_config__is_hybrid": True}, "Mamba"),
        ({"model_config__rswa_window": 512}, "reference sliding windows"),
        ({"cache_config__cache_dtype": "fp8", "model_config__dtype": torch.float16}, "add --kv-cache-dtype float16"),
        ({"cache_config__cache_dtype": "fp8"}, "add --dtype bfloat16 --kv-cache-dtype bfloat16"),
        (
            {"cache_config__cache_dtype": "bfloat16", "model_config__dtype": torch.float16},
            "the model's own float16 only, not of bfloat16",
        ),
        ({"cache_config__kv_offloading_size": 4.0, "kv_transfer_config": object()}, "remove --kv-offloading-size"),
        ({"parallel_config__pipeline_parallel_size": 2}, "set VLLM_USE_V2_MODEL_RUNNER=0"),
        ({"cache_config__user_specified_block_size": True}, "set it to 128"),
        ({"cache_config__kv_sharing_fast_prefill": True}, "remove --kv-sharing-fast-prefill"),
        ({"parallel_config__use_ubatching": True, "use_v2_model_runner": False}, "remove --enable-dbo"),
        ({"kv_transfer_config": object()}, "remove --kv-transfer-config"),
        ({"parallel_config__decode_context_parallel_size": 2}, "use tensor, pipeline or data parallelism"),
        ({"additional_config": {"sparse_attention": {"selector": "exact"}}}, "choose one of low_rank, block_mean"),
    ],
)
def test_refusals_say_what_to_change(resolve: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve("FLASH_ATTN", engine(**changes))


def test_budgets_that_will_not_be_followed_are_warned_of(resolve: Any, caplog: pytest.LogCaptureFixture) -> None:
    resolve("FLASH_ATTN", engine(speculative_config=object(), use_v2_model_runner=False))
    assert "the kv_budget of single requests is not followed" in caplog.text


def test_vllm_chooses_blocks_of_a_tile_and_makes_room_for_it(resolve: Any) -> None:
    backend = resolve("FLASH_ATTN", engine())
    assert backend.get_preferred_block_size(16) == BLOCK
    assert not backend.supports_block_size(64)
    spec = FullAttentionSpec(block_size=2 * BLOCK, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, dtype=torch.bfloat16)
    sparse = backend.customize_spec(spec)
    heads = backend.engine.heads(KV_HEADS, 1, HEAD_SIZE, torch.bfloat16)
    tile = layout.tile_bytes_per_token(heads) * BLOCK
    assert sparse.page_size_bytes == spec.page_size_bytes + 2 * KV_HEADS * tile
    assert tile >= layout.tile_bytes(heads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_regions_cover_vllm_s_cache_without_overlap(resolve: Any, dtype: torch.dtype) -> None:
    backend, layers, blocks = resolve("FLASH_ATTN", engine()), 2, 3
    heads = backend.engine.heads(KV_HEADS, 1, HEAD_SIZE, dtype)
    for cache_layout in backend.supported_kv_cache_layouts():
        across = cache_layout.is_layer_compact
        # Where the layers of a block lie together, vLLM takes no blocks of several kernel blocks.
        size = 2 * BLOCK if across else BLOCK
        spec = backend.customize_spec(
            FullAttentionSpec(block_size=size, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, dtype=dtype)
        )
        page = spec.page_size_bytes
        raw = torch.zeros(layers * blocks * page, dtype=torch.int8)
        tensor = KVCacheTensor(
            size=len(raw),
            layers=["0", "1"],
            layer_stride=blocks * page if across else page,
            block_stride=page if across else layers * page,
        )
        for view in create_kv_cache_views(raw, spec, blocks, cache_layout, tensor, kernel_block_size=BLOCK):
            cache, tiles = split_blocks(view, heads)
            assert cache.shape == (blocks * size // BLOCK, KV_HEADS, BLOCK, 2 * HEAD_SIZE)
            cache += 1
            tiles += 1
        # Every byte was written once: as 1 in tiles, as 1.0 elsewhere.
        tile = layout.tile_bytes_per_token(heads) * BLOCK * KV_HEADS
        block = raw.view(-1, page * BLOCK // size)
        assert (block[:, -tile:] == 1).all()
        assert (block[:, :-tile].contiguous().view(dtype) == 1).all()


def test_cuda_graphs_hold_batches_of_one_query_length(resolve: Any) -> None:
    for name in ("FLASH_ATTN", "TRITON_ATTN"):
        builder = resolve(name, engine()).get_builder_cls()
        assert builder.get_cudagraph_support(engine(), None) is AttentionCGSupport.UNIFORM_BATCH


class Stock:
    """vLLM's Triton attention in torch: writes the cache, and attends to all of it under the metadata's lengths."""

    def do_kv_cache_update(self, layer: Any, key: Any, value: Any, kv_cache: torch.Tensor, slots: torch.Tensor) -> None:
        kv_cache[slots // BLOCK, :, slots % BLOCK] = torch.cat([key, value], -1)

    def forward(
        self, layer: Any, query: Any, key: Any, value: Any, kv_cache: Any, metadata: Any, output: Any, *_: Any
    ) -> None:
        starts = metadata.query_start_loc.tolist()
        for row, tokens in enumerate(metadata.seq_lens.tolist()):
            new = slice(starts[row], starts[row + 1])
            both = kv_cache[metadata.block_table[row].long()].transpose(0, 1).flatten(1, 2)[:, :tokens]
            k, v = (x.repeat_interleave(QUERIES_PER_KV, 0) for x in both.split(HEAD_SIZE, -1))
            q = query[new].transpose(0, 1)
            causal = torch.arange(tokens) <= torch.arange(tokens - q.shape[1], tokens)[:, None]
            logits = (q @ k.mT * HEAD_SIZE**-0.5).masked_fill(~causal, -torch.inf)
            output[new] = (torch.softmax(logits, -1) @ v).transpose(0, 1)
        return output


class Run:
    """One attention layer of an engine on the sparse Triton backend."""

    def __init__(self, resolve: Any, monkeypatch: pytest.MonkeyPatch, layer: int = 1, count: int = 4) -> None:
        for name in ("do_kv_cache_update", "forward"):
            monkeypatch.setattr(TritonAttentionImpl, name, getattr(Stock, name))
        self.config = engine()
        backend = resolve("TRITON_ATTN", self.config)
        heads = KV_HEADS * QUERIES_PER_KV, HEAD_SIZE, HEAD_SIZE**-0.5, KV_HEADS
        self.impl = backend.get_impl_cls()(*heads, None, None, "auto", None, AttentionType.DECODER)
        name = f"model.layers.{layer}.attn"
        kind = {"attn_type": AttentionType.DECODER, "sliding_window": None, "head_size": HEAD_SIZE}
        layers = {name: SimpleNamespace(impl=self.impl, **kind)}
        # What a model of `count` layers has, all of them sparse.
        layers |= {f"model.layers.{i}.attn": SimpleNamespace(impl=self.impl, **kind) for i in range(count)}
        monkeypatch.setattr(
            Engine, "attention_layers", lambda self, names=None: {n: layers[n] for n in names or layers}
        )
        monkeypatch.setattr(
            "vllm.v1.attention.backends.triton_attn.get_num_attention_heads_from_layers",
            lambda *_: KV_HEADS * QUERIES_PER_KV,
        )
        spec = backend.customize_spec(
            FullAttentionSpec(block_size=BLOCK, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, dtype=torch.float32)
        )
        self.builder = backend.get_builder_cls()(spec, [name], self.config, torch.device("cpu"))
        self.kv_cache = torch.zeros(12, KV_HEADS, BLOCK, spec.state_content_size_bytes // 4)

    def common(
        self, seq_lens: list[int], new: list[int], tables: list[list[int]], slots: Any = None, prefilling: Any = None
    ) -> CommonAttentionMetadata:
        """What vLLM tells metadata builders of a step."""
        start = torch.tensor([0, *new]).cumsum(0).int()
        lens, table = torch.tensor(seq_lens).int(), torch.tensor(tables).int()
        positions = [torch.arange(n - m, n) for n, m in zip(seq_lens, new, strict=True)]
        slot = torch.cat([table[row][p // BLOCK] * BLOCK + p % BLOCK for row, p in enumerate(positions)])
        return CommonAttentionMetadata(
            query_start_loc=start,
            query_start_loc_cpu=start,
            seq_lens=lens,
            num_reqs=len(new),
            num_actual_tokens=sum(new),
            max_query_len=max(new),
            max_seq_len=max(seq_lens),
            block_table_tensor=table,
            slot_mapping=slot,
            req_idx=slots,
            is_prefilling=None if prefilling is None else torch.tensor(prefilling),
        )

    def step(
        self, seq_lens: list[int], new: list[int], tables: list[list[int]], slots: Any = None, prefilling: Any = None
    ) -> Any:
        """Runs a step on random tokens; returns queries, output and, for each row, the cache as it stands."""
        common = self.common(seq_lens, new, tables, slots, prefilling)
        slot, table = common.slot_mapping, common.block_table_tensor
        self.metadata = metadata = self.builder.build(0, common)
        query = torch.randn(sum(new), KV_HEADS * QUERIES_PER_KV, HEAD_SIZE)
        # Neighbouring tokens share something, as real ones do, which makes some pages heavier than others.
        key = (
            torch.randn(sum(new), KV_HEADS, HEAD_SIZE)
            + torch.randn(-(-sum(new) // 16), KV_HEADS, HEAD_SIZE)[torch.arange(sum(new)) // 16]
        )
        value, output = torch.randn_like(key), torch.zeros_like(query)
        self.impl.do_kv_cache_update(None, key, value, self.kv_cache, slot)
        self.impl.forward(None, query, key, value, self.kv_cache, metadata, output)
        paged = Paged(self.impl.heads, *split_blocks(self.kv_cache, self.impl.heads), seq_lens, table)
        return query, output, paged

    def expected(self, paged: Paged, row: int, budget: int, query: torch.Tensor) -> torch.Tensor:
        read = paged.expected_pages(row, budget // 16, query, Softmax(HEAD_SIZE**-0.5))
        return paged.expected(row, read, query, Softmax(HEAD_SIZE**-0.5))


@pytest.fixture
def running(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    torch.manual_seed(0)
    return Run(resolve, monkeypatch)


def dense(paged: Paged, row: int, query: torch.Tensor) -> torch.Tensor:
    everything = torch.ones(KV_HEADS, pages(paged.seq_lens[row], 16), dtype=torch.bool)
    return paged.expected(row, everything, query, Softmax(HEAD_SIZE**-0.5))


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(got.double(), expected, atol=1e-5)


def test_prefill_is_dense_and_decode_is_sparse_beyond_the_budget(running: Run) -> None:
    tables = [[3, 7, 1], [5, 2, 0]]
    query, output, paged = running.step([200, 60], [200, 60], tables)
    assert close(output[199], dense(paged, 0, query[199]))
    # A decode step of a long request and of one within its budget.
    query, output, paged = running.step([201, 61], [1, 1], tables)
    rest = running.builder.page_counts(BUDGET)[1] * 16
    assert close(output[0], running.expected(paged, 0, rest, query[0]))
    assert not close(output[0], dense(paged, 0, query[0]))
    assert close(output[1], dense(paged, 1, query[1]))
    # A batch that mixes decode with a chunk of a prefill, which completes blocks; then a step that reads them.
    _, output, paged = running.step([202, 170], [1, 109], tables)
    query, output, paged = running.step([203, 171], [1, 1], tables)
    for row in (0, 1):
        assert close(output[row], running.expected(paged, row, rest, query[row]))
        expected = paged.expected_summaries(row)
        for got, summary in zip(paged.summaries(row), expected, strict=True):
            blocks = paged.seq_lens[row] // BLOCK
            got = got.unflatten(0, (KV_HEADS, -1))[:, :blocks].flatten(0, 1)
            assert (got - summary).norm() < 0.02 * summary.norm()


def test_a_prefill_s_last_token_alone_is_dense(running: Run) -> None:
    tables = [[3, 7], [5, 2]]
    running.step([200, 200], [200, 200], tables)
    # Two steps of one token: the end of a prompt, and a decode step.
    query, output, paged = running.step([201, 201], [1, 1], tables, prefilling=[True, False])
    assert close(output[0], dense(paged, 0, query[0]))
    assert not close(output[1], dense(paged, 1, query[1]))


def test_steps_in_which_no_request_can_be_sparse_launch_no_decode_kernels(
    running: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Mock()
    monkeypatch.setattr("sparse_backend.kernels.triton.decode", decode)
    running.step([BUDGET - 1], [BUDGET - 1], [[3]])
    query, output, paged = running.step([BUDGET], [1], [[3]])
    assert close(output[0], dense(paged, 0, query[0]))
    assert not decode.called
    # A CUDA graph that is captured on short requests is replayed with long ones.
    common = running.common([BUDGET], [1], [[3]])
    assert running.builder.build_for_cudagraph_capture(common).sparse.any_rows
    running.step([BUDGET + 1], [1], [[3]])
    assert decode.called


def test_budgets_go_to_the_gpu_when_they_change(running: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    running.step([160, 160], [160, 160], [[3, 7], [5, 2]])
    staged = running.builder.staged
    running.step([161, 161], [1, 1], [[3, 7], [5, 2]])
    assert running.builder.staged is staged
    running.step([162, 162], [1, 1], [[3, 7], [5, 2]], prefilling=[True, False])
    assert running.builder.staged == [0, BUDGET]
    assert (running.metadata.sparse.step.page_budget > 0).tolist() == [False, True]


def test_requests_forked_from_one_prompt_share_its_summaries(running: Run) -> None:
    running.step([128], [128], [[4, 0]])
    query, output, paged = running.step([129, 129], [1, 1], [[4, 1], [4, 2]])
    rest = running.builder.page_counts(BUDGET)[1] * 16
    for row in (0, 1):
        assert close(output[row], running.expected(paged, row, rest, query[row]))


def test_samples_of_one_prompt_are_scored_together_until_they_are_others(running: Run) -> None:
    running.step([256], [256], [[4, 0]])
    _, rest, _ = running.builder.page_counts(BUDGET)

    def right(seq_lens: list[int], tables: list[list[int]], shared: list[int]) -> None:
        query, output, paged = running.step(seq_lens, [1] * len(tables), tables)
        sparse = running.metadata.sparse
        for step in (sparse.step, sparse.first_step):
            assert step.shared_pages.tolist() == shared
            assert step.bundles.data_ptr() == running.builder.bundles.data_ptr()
        for row in range(len(tables)):
            assert close(output[row], running.expected(paged, row, rest * 16, query[row]))

    right([257, 257, 257], [[4, 0, 1], [4, 0, 2], [4, 0, 3]], [16, 16, 16])
    right([258, 129, 258], [[4, 0, 1], [4, 5, 0], [4, 0, 3]], [16, 0, 16])
    # One request alone, for which nothing is looked up.
    right([259], [[4, 0, 1]], [0])


def test_the_first_layer_reads_more(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    run = Run(resolve, monkeypatch, layer=0, count=24)
    _, rest, first = run.builder.page_counts(BUDGET)
    assert first > rest
    run.step([310], [310], [[3, 7, 1]])
    query, output, paged = run.step([311], [1], [[3, 7, 1]])
    assert close(output[0], run.expected(paged, 0, first * 16, query[0]))


def test_budgets_follow_their_requests_by_slot(running: Run) -> None:
    """As vLLM's second model runner has it: requests keep a slot, rows are reordered in every step."""
    processor = RequestBudgets(running.config, SimpleNamespace())
    for slot, budget in ((2, None), (0, 0), (3, 112)):
        params = SimpleNamespace(extra_args=None if budget is None else {"kv_budget": budget})
        assert not processor.add_request(slot, params)  # type: ignore[arg-type]
    tables = [[3, 7], [5, 2], [8, 9]]
    running.step([160, 160, 160], [160, 160, 160], tables)
    query, output, paged = running.step([161, 161, 161], [1, 1, 1], tables, slots=[3, 2, 0])
    for row, budget in ((0, 112), (1, BUDGET)):
        rest = running.builder.page_counts(budget)[1] * 16
        assert close(output[row], running.expected(paged, row, rest, query[row]))
    assert close(output[2], dense(paged, 2, query[2]))


def test_a_draft_model_s_steps_have_the_engine_s_budget_where_slots_are_not_told(running: Run) -> None:
    processor = RequestBudgets(running.config, SimpleNamespace())
    for slot, budget in ((0, 0), (3, 112)):
        processor.add_request(slot, SamplingParams(extra_args={"kv_budget": budget}))
    common = running.common([161, 161], [1, 1], [[3, 7], [5, 2]])
    for slots, budgets in (([3, 0], [112, 0]), (None, [BUDGET, BUDGET])):
        common.req_idx = None if slots is None else np.array(slots)
        running.builder.build(0, common)
        assert running.builder.staged == budgets


def test_metadata_stays_in_place_from_step_to_step(running: Run) -> None:
    """A CUDA graph that was recorded in one step is replayed in the next."""

    def addresses() -> list[int]:
        start = torch.tensor([0, 1, 2]).int()
        common = CommonAttentionMetadata(
            query_start_loc=start,
            query_start_loc_cpu=start,
            seq_lens=torch.tensor([300, 40]).int(),
            num_reqs=2,
            num_actual_tokens=2,
            max_query_len=1,
            max_seq_len=300,
            block_table_tensor=torch.zeros(2, 3).int(),
            slot_mapping=torch.zeros(2).long(),
        )
        metadata = running.builder.build(0, common)
        assert metadata.seq_lens.tolist() == [1, 40]
        sparse = metadata.sparse
        assert (sparse.step.page_budget > 0).tolist() == [True, False]
        return [x.data_ptr() for x in (metadata.seq_lens, sparse.step.page_budget, sparse.first_step.page_budget)]

    assert addresses() == addresses()


def test_padding_rows_of_a_cuda_graph_are_left_alone(running: Run) -> None:
    running.step([130], [130], [[3, 7]])
    query, output, paged = running.step([131, 0], [1, 0], [[3, 7], [0, 0]], slots=[0])
    rest = running.builder.page_counts(BUDGET)[1] * 16
    assert close(output[0], running.expected(paged, 0, rest, query[0]))


@pytest.mark.parametrize(("head_size", "slopes"), [(512, None), (36, None), (64, [0.5] * 4)])
def test_layers_that_cannot_be_sparse_take_no_scratch_memory(resolve: Any, head_size: int, slopes: Any) -> None:
    config = engine()
    backend = resolve("TRITON_ATTN", config)
    impl = backend.get_impl_cls()(4, head_size, 1.0, 4, slopes, None, "auto", None, AttentionType.DECODER)
    assert impl.work is None
    assert not backend.engine.scratch


def test_sinks_follow_weights_that_are_loaded_again(resolve: Any) -> None:
    backend, sinks = resolve("TRITON_ATTN", engine()), torch.zeros(4)
    shape = 4, HEAD_SIZE, 1.0, 4, None, None
    impl = backend.get_impl_cls()(*shape, "auto", None, AttentionType.DECODER, sinks=torch.nn.Parameter(sinks))
    assert not impl.softmax.sinks.any()
    sinks.fill_(3)
    assert (impl.softmax.sinks == 3).all()


def test_a_draft_model_of_shorter_contexts_has_room_for_those_it_drafts_for(
    resolve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = engine()
    backend = resolve("TRITON_ATTN", target)
    draft = engine(model_config__max_model_len=128, compilation_config=target.compilation_config)
    monkeypatch.setattr(cuda_layer, "get_current_vllm_config", lambda: draft)
    impl = backend.get_impl_cls()(4, HEAD_SIZE, 1.0, 4, None, None, "auto", None, AttentionType.DECODER)
    assert impl.work.log_mass.shape[3] == target.model_config.max_model_len // 16


def test_default_config_is_one_that_cuda_serves() -> None:
    assert SparseAttentionConfig().selector in layout.SELECTORS
