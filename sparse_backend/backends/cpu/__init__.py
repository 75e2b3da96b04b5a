"""vLLM's CPU attention backend, with decode steps of long requests made sparse.

Everything else is the stock backend: prefill, requests within their budget, sliding-window layers. With pages of 32
and 64 tokens those give the stock backend's results bit for bit. With 8 and 16 its kernel is the variant for small
blocks, and the bits are the same as long as the context fits into one of its tiles, some 1,000 tokens: beyond, where a
tile ends depends on the variant and on the L2 cache, and results are equal to rounding.

`Backend` is what the plugin registers. It resolves to the stock backend unless the engine being built asks for
sparse attention.
"""

from __future__ import annotations

from vllm.config import get_current_vllm_config
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

from sparse_backend.backends.cpu.backend import SparseCPUBackend
from sparse_backend.backends.engine import check_engine, engine_of


def __getattr__(name: str) -> type[CPUAttentionBackend]:
    if name != "Backend":
        raise AttributeError(name)
    vllm_config = get_current_vllm_config()
    engine = engine_of(vllm_config)
    if engine is None:
        return CPUAttentionBackend
    check_engine(vllm_config)
    return engine.backend(SparseCPUBackend)
