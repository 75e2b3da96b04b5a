"""vLLM's entry point. Loading it changes nothing until an engine's `additional_config` has `sparse_attention`."""

from __future__ import annotations

CPU_BACKEND = "sparse_backend.backends.cpu.Backend"
# Whichever of these vLLM chooses becomes sparse where an engine asks for it, so that no option has to name a backend.
CUDA_BACKENDS = ("FLASH_ATTN", "FLASHINFER", "TRITON_ATTN", "CUSTOM")


def register() -> None:
    """Entry point of group `vllm.general_plugins`; vLLM calls it in every process, before any model is built.

    Raises LacksInterface where this vLLM lacks what we build on.
    """
    from vllm import __version__

    from sparse_backend.vllm_versions import interfaces_of

    with interfaces_of(__version__):
        _register()


def _register() -> None:
    from vllm.platforms import current_platform
    from vllm.v1.attention import selector
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from sparse_backend.backends.choice import watched

    selector._cached_get_attn_backend = watched(selector._cached_get_attn_backend)  # type: ignore[assignment]
    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, CPU_BACKEND)
    elif current_platform.is_cuda():
        for name in CUDA_BACKENDS:
            register_backend(AttentionBackendEnum[name], f"sparse_backend.backends.cuda.{name}")
