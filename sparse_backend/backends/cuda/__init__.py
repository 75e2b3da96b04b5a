"""vLLM's CUDA attention backends, with decode steps of long requests made sparse.

Like the CPU backend: prefill, requests within their budget and layers that can't be sparse are the stock backend's.
A sparse request costs one token there, whose output is overwritten. Which requests are sparse is decided on the GPU,
from buffers that stay in place, so that whole decode steps can be CUDA graphs.

The plugin registers `FLASH_ATTN`, `FLASHINFER`, `TRITON_ATTN` and `CUSTOM` of this module. Each resolves to the stock
backend unless the engine being built asks for sparse attention.
"""

from __future__ import annotations

from typing import Any

from vllm.config import VllmConfig, get_current_vllm_config_or_none
from vllm.utils.import_utils import resolve_obj_by_qualname
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from sparse_backend.backends.cuda.backend import SparseFlashAttentionBackend, SparseTritonAttentionBackend
from sparse_backend.backends.engine import check_engine, engine_of
from sparse_backend.config import KEY, ConfigError, SparseAttentionConfig
from sparse_backend.kernels import triton as kernels

REPLACEMENTS: dict[str, type[Any]] = {
    "FLASH_ATTN": SparseFlashAttentionBackend,
    "FLASHINFER": SparseFlashAttentionBackend,
    "TRITON_ATTN": SparseTritonAttentionBackend,
    "CUSTOM": SparseFlashAttentionBackend,
}


def __getattr__(name: str) -> type[Any]:
    if name not in REPLACEMENTS:
        raise AttributeError(name)
    vllm_config = get_current_vllm_config_or_none()
    engine = vllm_config and engine_of(vllm_config)
    if vllm_config is not None and engine:
        check_engine(vllm_config, refusals(vllm_config, engine.config))
        return engine.backend(REPLACEMENTS[name])
    if name == "CUSTOM":
        raise ConfigError(f"The attention backend CUSTOM is sparse attention: put {KEY} in additional_config.")
    stock: type[Any] = resolve_obj_by_qualname(AttentionBackendEnum[name].value)
    return stock


def refusals(vllm_config: VllmConfig, config: SparseAttentionConfig) -> list[tuple[bool, str]]:
    """What `check_engine` refuses on CUDA, beside what it refuses everywhere."""
    return [
        (
            config.selector not in kernels.SELECTORS,
            f"has no CUDA kernels for the selector {config.selector}: choose one of {', '.join(kernels.SELECTORS)}",
        ),
        (
            vllm_config.model_config.is_hybrid,
            "does not support models that mix attention with Mamba or linear layers on CUDA",
        ),
        (
            vllm_config.model_config.rswa_window is not None,
            "does not support reference sliding windows",
        ),
        (
            vllm_config.cache_config.kv_sharing_fast_prefill,
            "does not support fast prefill of KV-sharing layers: remove --kv-sharing-fast-prefill",
        ),
        (
            vllm_config.parallel_config.use_ubatching and not vllm_config.use_v2_model_runner,
            "with microbatches needs vLLM's second model runner, since its first one does not tell which requests are "
            "in which: remove --enable-dbo and --ubatch-size",
        ),
    ]
