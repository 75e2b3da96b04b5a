"""What the CPU backend decides before its first step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="the backend is a subclass of vLLM's")

import torch
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder
from vllm.v1.kv_cache_interface import FullAttentionSpec

from sparse_backend.backends.cpu.builder import SparseCPUMetadataBuilder
from sparse_backend.config import ConfigError


def kernel_on(isa: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """vLLM's kernel that a layer's builder settles on, on a CPU for which vLLM would take `isa`."""

    def stock(self: Any, *_: Any) -> None:
        self.isa, self.vllm_config = isa, vllm_config

    vllm_config: Any = SimpleNamespace(
        additional_config={"sparse_attention": {"page_size": 32}},
        compilation_config=SimpleNamespace(static_forward_context={}),
        model_config=SimpleNamespace(is_hybrid=False, dtype=torch.bfloat16),
        parallel_config=SimpleNamespace(rank=1, tensor_parallel_size=2),
        cache_config=SimpleNamespace(cache_dtype="auto"),
    )
    monkeypatch.setattr(CPUAttentionMetadataBuilder, "__init__", stock)
    spec = FullAttentionSpec(block_size=32, num_kv_heads=2, head_size=64, dtype=torch.bfloat16)
    return SparseCPUMetadataBuilder(spec, [], vllm_config, torch.device("cpu")).isa


@pytest.mark.parametrize(("isa", "used"), [("vec", "vec"), ("vec16", "vec16"), ("amx", "vec")])
def test_the_kv_cache_has_a_layout_that_the_kernels_read(isa: str, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel_on(isa, monkeypatch) == used


def test_cpus_with_another_layout_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="of this CPU \\(neon\\): remove sparse_attention"):
        kernel_on("neon", monkeypatch)
