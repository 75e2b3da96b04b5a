"""Steps as vLLM's second model runner builds them, through FlashAttention's builder and layer, its kernel replaced."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm")
pytest.importorskip("triton")

from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends import flash_attn
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.worker.gpu.attn_utils import build_attn_metadata
from vllm.v1.worker.utils import AttentionGroup

from sparse_backend.backends import cuda
from sparse_backend.backends.cuda import layer as cuda_layer
from sparse_backend.backends.engine import Engine
from sparse_backend.constants import BLOCK
from sparse_backend.kernels.batch import Softmax
from sparse_backend.kernels.triton import layout, split_blocks
from sparse_backend.request_budgets import RequestBudgets
from tests.sparse_backend.cuda_engines import BUDGET, HEAD_SIZE, KV_HEADS, QUERIES_PER_KV, engine
from tests.sparse_backend.gpu_caches import Paged

WINDOW = 48
BLOCKS = 14


def write(key: Any, value: Any, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, *_: Any) -> None:
    """FlashAttention's write, in torch."""
    keys[slots // BLOCK, slots % BLOCK] = key[: len(slots)]
    values[slots // BLOCK, slots % BLOCK] = value[: len(slots)]


def attend(
    q: Any, k: Any, v: Any, out: Any, cu_seqlens_q: Any, seqused_k: Any, block_table: Any, window_size: Any, **_: Any
) -> None:
    """FlashAttention over a paged cache, in torch."""
    starts = cu_seqlens_q.tolist()
    for row, tokens in enumerate(seqused_k.tolist()):
        new = slice(starts[row], starts[row + 1])
        keys, values = (
            x[block_table[row].long()].flatten(0, 1)[:tokens].repeat_interleave(QUERIES_PER_KV, 1) for x in (k, v)
        )
        n = new.stop - new.start
        distance = torch.arange(tokens - n, tokens)[:, None] - torch.arange(tokens)
        seen = (distance >= 0) & ((distance <= window_size[0]) if window_size[0] >= 0 else True)
        logits = torch.einsum("qhd,khd->hqk", q[new], keys) * HEAD_SIZE**-0.5
        weights = torch.softmax(logits.masked_fill(~seen, -torch.inf), -1).nan_to_num()
        out[new] = torch.einsum("hqk,khd->qhd", weights, values)


class Model:
    """Attention layers, by name: those of one group share block tables and metadata."""

    def __init__(self, patch: pytest.MonkeyPatch, groups: list[dict[str, dict[str, Any]]], **settings: Any) -> None:
        self.config = engine(**settings)
        patch.setattr(cuda, "get_current_vllm_config_or_none", lambda: self.config)
        patch.setattr(cuda_layer, "get_current_vllm_config", lambda: self.config)
        patch.setattr(flash_attn, "get_flash_attn_version", lambda **_: 2)
        patch.setattr(flash_attn, "flash_attn_supports_quant_query_input", lambda: False)
        patch.setattr(flash_attn, "reshape_and_cache_flash", write, raising=False)
        patch.setattr(flash_attn, "_FA4_DENSE_ATTENTION_KERNEL", attend)
        heads = KV_HEADS * QUERIES_PER_KV
        patch.setattr(flash_attn, "get_num_attention_heads_from_layers", lambda *_: heads)
        self.backend = cuda.FLASH_ATTN
        self.layers: dict[str, Any] = {}
        for kinds in groups:
            for name, kind in kinds.items():
                window, shared = kind.get("window"), kind.get("shares")
                impl = self.backend.get_impl_cls()(
                    heads,
                    HEAD_SIZE,
                    HEAD_SIZE**-0.5,
                    KV_HEADS,
                    None,
                    window,
                    "auto",
                    None,
                    AttentionType.DECODER,
                    shared,
                )
                self.layers[name] = SimpleNamespace(
                    impl=impl,
                    attn_type=AttentionType.DECODER,
                    sliding_window=window,
                    head_size=HEAD_SIZE,
                    _k_scale=torch.ones(1),
                    _v_scale=torch.ones(1),
                )
        patch.setattr(
            Engine, "attention_layers", lambda _, names=None: {name: self.layers[name] for name in names or self.layers}
        )
        spec = self.backend.customize_spec(
            FullAttentionSpec(block_size=BLOCK, num_kv_heads=KV_HEADS, head_size=HEAD_SIZE, dtype=torch.float32)
        )
        self.groups = [[AttentionGroup(self.backend, list(kinds), spec, i)] for i, kinds in enumerate(groups)]
        for (group,) in self.groups:
            group.create_metadata_builders(self.config, torch.device("cpu"))
        self.builder: Any = self.groups[0][0].get_metadata_builder()
        shape = BLOCKS, KV_HEADS, BLOCK, spec.state_content_size_bytes // 4
        self.caches = {name: torch.zeros(shape) for name in self.layers}
        for name, kind in ((name, kind) for kinds in groups for name, kind in kinds.items()):
            if "shares" in kind:
                self.caches[name] = self.caches[kind["shares"]]

    def step(
        self,
        lens: list[int],
        new: list[int],
        tables: list[list[int]],
        slots: list[int] | None = None,
        padding: int = 0,
        keys: torch.Tensor | None = None,
    ) -> dict[str, Any]:
        """One step of all layers. Returns queries, and by layer outputs and the cache as it stands."""
        start = torch.tensor([0, *new, *[0] * padding]).cumsum(0).int()
        table = torch.tensor(tables + [[0] * len(tables[0])] * padding).int()
        positions = [torch.arange(n - m, n) for n, m in zip(lens, new, strict=True)]
        slot = torch.cat([table[row][p // BLOCK].long() * BLOCK + p % BLOCK for row, p in enumerate(positions)])
        count = len(lens) + padding
        metadata = build_attn_metadata(
            attn_groups=self.groups,
            num_reqs=count,
            num_tokens=sum(new),
            query_start_loc_gpu=start,
            query_start_loc_cpu=start,
            max_query_len=max(new),
            seq_lens=torch.tensor([*lens, *[0] * padding]).int(),
            max_seq_len=max(lens),
            block_tables=[table] * len(self.groups),
            slot_mappings=slot.expand(len(self.groups), -1),
            kv_cache_config=SimpleNamespace(kv_cache_groups=self.groups),  # type: ignore[arg-type]
            is_prefilling=torch.tensor([m == n for n, m in zip(lens, new, strict=True)]),
            req_idx=np.array(slots if slots is not None else range(len(lens))),
        )
        query = torch.randn(sum(new), KV_HEADS * QUERIES_PER_KV, HEAD_SIZE)
        key = torch.randn(sum(new), KV_HEADS, HEAD_SIZE) if keys is None else keys
        value = torch.randn_like(key)
        results: dict[str, Any] = {"query": query}
        for name, layer in self.layers.items():
            output, cache = torch.zeros_like(query), self.caches[name]
            if layer.impl.kv_sharing_target_layer_name is None:
                layer.impl.do_kv_cache_update(layer, key, value, cache, slot)
            layer.impl.forward(layer, query, key, value, cache, metadata[name], output)
            paged = Paged(layer.impl.heads, *split_blocks(cache, layer.impl.heads), lens, table[: len(lens)])
            results[name] = output, paged
        return results

    def sparse(self, paged: Paged, row: int, query: torch.Tensor, budget: int = BUDGET, first: bool = False) -> Any:
        pages = self.builder.page_counts(budget)[2 if first else 1]
        softmax = Softmax(HEAD_SIZE**-0.5)
        return paged.expected(row, paged.expected_pages(row, pages, query, softmax), query, softmax)


def dense(paged: Paged, row: int, query: torch.Tensor, last: int | None = None, window: int | None = None) -> Any:
    """Attention of the query at token `last` (the row's last one) to all before it, or to those of a window."""
    keys, values = paged.tokens(row)
    end = paged.seq_lens[row] if last is None else last + 1
    begin = 0 if window is None else max(0, end - window)
    q = query.double().view(KV_HEADS, QUERIES_PER_KV, HEAD_SIZE)
    weights = torch.softmax(q @ keys[:, begin:end].mT * HEAD_SIZE**-0.5, -1)
    return (weights @ values[:, begin:end]).flatten(0, 1)


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(got.double(), expected, atol=1e-5)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(layout, "SMS", 4)


FULL: dict[str, Any] = {}
TABLES = [[3, 7], [5, 2]]


def test_windowed_layers_stay_dense_in_a_group_of_their_own_and_beside_sparse_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window = {"window": WINDOW}
    groups = [{"layers.1": FULL, "layers.2": window}, {"layers.3": window}]
    model = Model(monkeypatch, groups)
    model.step([200, 150], [200, 150], TABLES)
    results = model.step([201, 151], [1, 1], TABLES)
    for row in (0, 1):
        query = results["query"][row]
        output, paged = results["layers.1"]
        assert close(output[row], model.sparse(paged, row, query))
        for name in ("layers.2", "layers.3"):
            output, paged = results[name]
            assert close(output[row], dense(paged, row, query, window=WINDOW))


def test_layers_that_share_a_cache_read_the_summaries_that_its_owner_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(monkeypatch, [{"layers.1": FULL, "layers.2": {"shares": "layers.1"}}])
    assert not model.layers["layers.2"].impl.writes_cache
    model.step([200], [200], TABLES[:1])
    results = model.step([201], [1], TABLES[:1])
    for name in ("layers.1", "layers.2"):
        output, paged = results[name]
        assert close(output[0], model.sparse(paged, 0, results["query"][0]))
    assert torch.equal(results["layers.1"][0], results["layers.2"][0])


def test_batches_go_in_waves_and_padding_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_WAVE", 2)
    model = Model(monkeypatch, [{"layers.1": FULL}], scheduler_config__max_num_seqs=5)
    tables = [[i, i + 1] for i in range(0, 10, 2)]
    lens = [130, 200, 90, 170, 250]
    processor = RequestBudgets(model.config, SimpleNamespace())
    for slot, budget in ((7, 0), (1, 112)):
        processor.add_request(slot, SimpleNamespace(extra_args={"kv_budget": budget}))  # type: ignore[arg-type]
    model.step(lens, lens, tables)
    lens = [n + 1 for n in lens]
    results = model.step(lens, [1] * 5, tables, slots=[4, 7, 0, 1, 2], padding=2)
    output, paged = results["layers.1"]
    for row, budget in enumerate([BUDGET, 0, 0, 112, BUDGET]):  # the third is within its budget
        query = results["query"][row]
        expected = model.sparse(paged, row, query, budget) if budget else dense(paged, row, query)
        assert close(output[row], expected), row


def test_steps_of_several_tokens_are_dense_and_rejected_drafts_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in speculative decoding: 4 tokens of a request, of which the last two are rejected, beside a plain request."""
    model = Model(monkeypatch, [{"layers.1": FULL}], speculative_config=SimpleNamespace())
    model.step([156, 200], [156, 200], TABLES)
    results = model.step([160, 201], [4, 1], TABLES)  # the drafts complete a page
    output, paged = results["layers.1"]
    for i in range(4):
        assert close(output[i], dense(paged, 0, results["query"][i], last=156 + i))
    assert close(output[4], model.sparse(paged, 1, results["query"][4]))
    # Two tokens stay; a plain step, in which the page of the rejected ones is incomplete again.
    results = model.step([159, 202], [1, 1], TABLES)
    output, paged = results["layers.1"]
    for row in (0, 1):
        assert close(output[row], model.sparse(paged, row, results["query"][row]))
    # Other tokens complete it, and long afterwards it is chosen by what they are.
    model.step([163, 203], [4, 1], TABLES)
    model.step([240, 204], [77, 1], TABLES)
    results = model.step([241, 205], [1, 1], TABLES)
    output, paged = results["layers.1"]
    for row in (0, 1):
        assert close(output[row], model.sparse(paged, row, results["query"][row]))
    got, expected = (x.unflatten(0, (KV_HEADS, -1)) for x in (paged.summaries(0)[0], paged.expected_summaries(0)[0]))
    assert (got[:, :1] - expected).norm() < 0.02 * expected.norm()
    page = paged.tokens(0)[0][:, 144:160].mean(1)
    assert (got[:, 1, 1] - page).norm() < 0.02 * page.norm()
