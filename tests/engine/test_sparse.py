import json

import pytest

from kinetics_serve.cost import DENSE
from kinetics_serve.engine import sparse
from sparse_backend.config import BLOCK, SparseAttentionConfig
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


def test_a_request_asks_for_what_differs_from_the_engines_own() -> None:
    engine = sparse.kv_policy(1024)
    assert sparse.request_fields({}, sparse.requested("auto", engine), engine) == {}
    assert sparse.request_fields({}, sparse.requested("dense", engine), engine) == {"vllm_xargs": {"kv_budget": 0}}
    body = {"vllm_xargs": {"other": 1}}
    fields = sparse.request_fields(body, sparse.requested(512, engine), engine)
    assert fields == {"vllm_xargs": {"other": 1, "kv_budget": 512}}
    assert sparse.request_fields({}, sparse.requested("dense", DENSE), DENSE) == {}
