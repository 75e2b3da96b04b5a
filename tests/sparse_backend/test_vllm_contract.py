"""What vLLM asks of an attention backend: every question is listed here, and a new one fails until it is decided."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("triton")

import torch
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionMetadataBuilder, AttentionType

from sparse_backend.backends.cpu.backend import SparseCPUBackend
from sparse_backend.backends.cuda.backend import SparseFlashAttentionBackend, SparseTritonAttentionBackend

STOCK = "as the stock backend says"

CUDA: dict[str, object] = {
    "supports_alibi_sqrt": STOCK,  # layers with ALiBi stay dense
    "supports_attn_type": STOCK,  # others than decoders' are the stock backend's
    "supports_batch_invariance": False,  # how pages are split over programs depends on the batch
    "supports_block_size": "multiples of a tile's tokens",
    "supports_combination": STOCK,
    "supports_compute_capability": STOCK,
    "supports_dcp": False,  # no rank sees all of a request's pages
    "supports_device_cpu_query_lens_mismatch": STOCK,  # lengths are read on the GPU
    "supports_dtype": STOCK,
    "supports_head_size": STOCK,  # layers of other sizes than the kernels' stay dense
    "supports_kv_cache_dtype": STOCK,  # another than the model's own is refused with advice
    "supports_kv_cache_update_bypass": False,  # vLLM 0.33: the update finds the regions of the cache
    "supports_kv_connector": False,  # nobody would write the summaries of what it loads
    "supports_mm_prefix": STOCK,  # bidirectional parts are prefill
    "supports_non_causal": STOCK,  # such steps are the stock backend's
    "supports_non_causal_dcp": STOCK,
    "supports_pcp": STOCK,  # context parallelism is refused at start
    "supports_per_head_quant_scales": STOCK,
    "supports_rswa": STOCK,  # refused at start
    "supports_sink": STOCK,
    "supports_sliding_window": STOCK,  # such layers stay dense
}

IMPL = {
    "supports_dcp": False,
    "supports_dense_mha_prefill": STOCK,
    "supports_mtp_with_cp_non_trivial_interleave_size": STOCK,
    "supports_pcp": STOCK,
}

# Both would reuse metadata whose sparse part belongs to another step.
BUILDER = {"supports_draft_decode_metadata_update", "supports_update_block_table"}


def questions(asked: type[Any]) -> set[str]:
    return {name for name in dir(asked) if name.startswith("supports_")}


@pytest.mark.parametrize("backend", [SparseFlashAttentionBackend, SparseTritonAttentionBackend])
def test_every_question_of_vllm_is_decided(backend: type[Any]) -> None:
    assert questions(AttentionBackend) | {"supports_kv_cache_update_bypass"} == set(CUDA)
    assert questions(backend) == set(CUDA)
    # One of them is set anew for each layer, by its own rule: queries come as they are.
    assert questions(AttentionImpl) - {"supports_quant_query_input"} == set(IMPL)
    assert questions(AttentionMetadataBuilder) == BUILDER


@pytest.mark.parametrize("backend", [SparseFlashAttentionBackend, SparseTritonAttentionBackend])
def test_what_is_decided_is_what_vllm_is_told(backend: type[Any]) -> None:
    stock: Any = next(base for base in backend.__mro__ if base.__module__.startswith("vllm."))
    for name, decision in CUDA.items():
        if decision is False:
            assert getattr(backend, name)() is False, name
        elif decision is STOCK and name != "supports_dcp":
            assert getattr(backend, name).__func__ is getattr(stock, name).__func__, name
    for name, decision in IMPL.items():
        expected = False if decision is False else getattr(stock.get_impl_cls(), name)
        assert getattr(backend.get_impl_cls(), name) is expected, name
    assert [backend.supports_block_size(size) for size in (None, 64, 128, 192, 256)] == [True, False, True, False, True]


def test_the_cpu_backend_answers_as_stock_vllm_does() -> None:
    stock = SparseCPUBackend.__mro__[1]
    assert questions(SparseCPUBackend) == questions(AttentionBackend)
    for name in questions(AttentionBackend):
        assert getattr(SparseCPUBackend, name).__func__ is getattr(stock, name).__func__, name
    assert SparseCPUBackend.supports_attn_type(AttentionType.DECODER)
    assert SparseCPUBackend.supports_dtype(torch.bfloat16)
