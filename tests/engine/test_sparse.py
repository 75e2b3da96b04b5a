import json
from pathlib import Path

import pytest
from transformers import LlamaConfig

from kinetics_serve.cost import DENSE
from kinetics_serve.engine import sparse
from sparse_backend.config import SparseAttentionConfig
from sparse_backend.constants import BLOCK
from sparse_backend.selection import get_selector


def test_the_front_end_knows_the_plugins_defaults() -> None:
    config = SparseAttentionConfig()
    assert config.page_size == sparse.PAGE_SIZE
    assert config.min_budget == sparse.MIN_KV_BUDGET
    stated = json.loads(sparse.engine_args(512)[1])
    assert SparseAttentionConfig.from_mapping(stated["sparse_attention"]).kv_budget == 512


@pytest.mark.parametrize("head_size", [64, 80, 128])
def test_the_bill_covers_the_summaries_that_are_read(head_size: int) -> None:
    config = SparseAttentionConfig()
    tile = get_selector(config.selector).tile_bytes(head_size, config.page_size)
    vectors = tile / (BLOCK // config.page_size) / (2 * head_size)
    assert vectors <= sparse.SUMMARY_VECTORS
    assert vectors > 0.8 * sparse.SUMMARY_VECTORS


def test_a_stated_budget_is_always_sent() -> None:
    engine = sparse.kv_policy(1024)
    assert sparse.request_fields({}, sparse.requested("dense", engine)) == {"vllm_xargs": {"kv_budget": 0}}
    assert sparse.request_fields({}, sparse.requested("dense", DENSE)) == {"vllm_xargs": {"kv_budget": 0}}
    body = {"vllm_xargs": {"other": 1}}
    fields = sparse.request_fields(body, sparse.requested(512, engine))
    assert fields == {"vllm_xargs": {"other": 1, "kv_budget": 512}}
    assert sparse.requested("auto", engine) is engine


def test_an_embedded_engine_is_sparse_where_the_plugin_works(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    LlamaConfig().save_pretrained(tmp_path / "llama")
    (tmp_path / "mla").mkdir()
    (tmp_path / "mla" / "config.json").write_text('{"model_type": "deepseek_v3", "kv_lora_rank": 512}')
    assert sparse.default_kv_budget(str(tmp_path / "llama"), []) == SparseAttentionConfig().kv_budget
    assert sparse.default_kv_budget(str(tmp_path / "llama"), ["--block-size", "64"]) is None
    assert sparse.default_kv_budget(str(tmp_path / "llama"), ["--kv-cache-dtype=fp8"]) is None
    assert sparse.default_kv_budget(str(tmp_path / "llama"), ["--speculative-config", "{}"]) is None
    assert sparse.default_kv_budget(str(tmp_path / "mla"), []) is None


def test_without_a_compiler_an_embedded_engine_is_dense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert sparse.default_kv_budget(str(tmp_path), []) is None
