"""What we build on in vLLM, in every version that we are made for; and what vLLM asks of an attention backend: every
question is listed here, and a new one fails until it is decided."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("triton")

import torch
import vllm
from vllm.v1.attention.backend import AttentionBackend, AttentionImpl, AttentionMetadataBuilder, AttentionType

from sparse_backend.backends import engine
from sparse_backend.backends.cpu.backend import SparseCPUBackend
from sparse_backend.backends.cuda.backend import SparseFlashAttentionBackend, SparseTritonAttentionBackend
from sparse_backend.config import SparseAttentionConfig
from sparse_backend.vllm_versions import KNOWN, LacksInterface, interfaces_of, is_known
from tests.sparse_backend.vllm_sources import RECORDS, Record, Sources

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


# What differs between versions of what we use, and why that is no matter.
DIFFERENCES = {
    ("vllm.v1.attention.backends.flash_attn:FlashAttentionBackend", "supports_kv_cache_update_bypass"): "False on ours",
}


def record(version: str) -> Record:
    found: Record = json.loads((RECORDS / f"{version}.json").read_text())
    return found


def test_what_we_use_is_as_it_was_recorded() -> None:
    """Where it is not, `python -m tests.sparse_backend.vllm_sources` records it anew, for every version."""
    installed = Sources(Path(vllm.__file__).parents[1]).record()
    version = vllm.__version__.rpartition(".")[0]
    assert installed == record(version)
    assert {file.stem for file in RECORDS.glob("*.json")} == set(KNOWN)
    assert all(set(record(each)) == set(installed) for each in KNOWN)


def test_versions_differ_where_that_was_decided() -> None:
    first, *others = [record(version) for version in KNOWN]
    found = set()
    for other in others:
        for name in first:
            one, another = first[name], other[name]
            if isinstance(one, dict) and isinstance(another, dict):
                found |= {(name, each) for each in one.keys() | another.keys() if one.get(each) != another.get(each)}
            elif one != another:
                found.add((name, ""))
    assert found == set(DIFFERENCES)


def test_a_version_without_something_that_we_use_is_an_error_that_says_what() -> None:
    expected = r"vLLM 9\.9: cannot import name 'nothing'.*made for vLLM 0\.32 and 0\.33"
    with pytest.raises(LacksInterface, match=expected), interfaces_of("9.9"):
        # It is not there: that is what is tried.
        from vllm import nothing  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(LookupError, match="has no __version__ in vllm"):
        Sources(Path(__file__).parent).record()


def test_versions_are_known_by_their_minor_number() -> None:
    assert is_known(vllm.__version__)
    assert [is_known(version) for version in ("0.32.1", "0.33.0rc1", "0.34.0", "0.320.0", "dev")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_an_engine_of_an_unknown_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine, "__version__", "9.9.0")
    monkeypatch.setattr(engine.logger, "warning_once", lambda text, *values: said.append(text % values))
    # Before any layer is built, an engine keeps its configuration and asks nothing of it.
    engine.Engine(SimpleNamespace(), SparseAttentionConfig())  # type: ignore[arg-type]
    assert said == ["This is vLLM 9.9.0, and sparse attention is made for 0.32 and 0.33."]


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
