"""One vLLM engine with sparse attention: its settings, its requests' budgets, its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import torch
from vllm import __version__
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.logger import init_logger
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.models.utils import extract_layer_index
from vllm.platforms import current_platform

from sparse_backend.backends.layers import dense_reason
from sparse_backend.config import KEY, ConfigError, SparseAttentionConfig, from_additional_config
from sparse_backend.constants import BLOCK
from sparse_backend.engine_info import publish, ranges
from sparse_backend.kernels import Heads, Kernels, cpu_kernels
from sparse_backend.selection import get_selector
from sparse_backend.vllm_versions import KNOWN, is_known

logger = init_logger(__name__)

ATTRIBUTE = "sparse_attention"

BackendT = TypeVar("BackendT")


class Engine:
    """What sparse attention knows of one vLLM engine. `engine_of` finds it."""

    def __init__(self, vllm_config: VllmConfig, config: SparseAttentionConfig) -> None:
        if not is_known(__version__):
            made_for = " and ".join(KNOWN)
            logger.warning_once("This is vLLM %s, and sparse attention is made for %s.", __version__, made_for)
        self.vllm_config = vllm_config
        self.config = config
        try:
            self.selector = get_selector(config.selector)
        except (ImportError, AttributeError, LookupError, TypeError) as error:
            raise ConfigError(f"{KEY}.selector is {config.selector!r}, which cannot be loaded: {error}") from error
        self.budgets: dict[int, int] = {}
        """KV budgets of requests that ask for one: by place in the batch with vLLM's first model runner, by request
        slot with its second one."""
        self.scratch: dict[Heads, Any] = {}
        """Scratch memory of CUDA kernels, for layers of one shape."""
        self.published = False
        self.layer_budgets = lru_cache(1024)(self._layer_budgets)  # asked for every request in every step
        self._heads: dict[tuple[Any, ...], Heads] = {}
        self._backends: dict[type[Any], type[Any]] = {}

    @property
    def hybrid(self) -> bool:
        """Whether layers that are no attention, such as Mamba's, share KV blocks with those that are."""
        return bool(self.vllm_config.model_config.is_hybrid)

    def heads(
        self, kv_heads: int, num_queries_per_kv: int, head_size: int, dtype: torch.dtype, block_stride: int = 0
    ) -> Heads:
        """One object for layers of one shape, by which the kernels see that a step is prepared for them already."""
        shape = kv_heads, num_queries_per_kv, head_size, dtype, block_stride
        if shape not in self._heads:
            self._heads[shape] = Heads.of(self.config, self.selector, *shape)
        return self._heads[shape]

    def backend(self, kind: type[BackendT]) -> type[BackendT]:
        """A subclass of a backend that knows this engine: vLLM asks backends by class, for the most part."""
        if kind not in self._backends:
            names = {"engine": self, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
            self._backends[kind] = type(kind.__name__, (kind,), names)
        return self._backends[kind]

    @cached_property
    def cpu_kernels(self) -> Kernels:
        return cpu_kernels(self.selector)

    def attention_layers(self, names: list[str] | None = None) -> dict[str, Attention]:
        """The attention layers that were built so far, by name."""
        return get_layers_from_vllm_config(self.vllm_config, Attention, names)

    @cached_property
    def dense_reasons(self) -> dict[str, str | None]:
        """Why each attention layer stays dense, None where it is sparse. Once all layers are built."""
        return {name: dense_reason(layer) for name, layer in self.attention_layers().items()}

    def publish(self, tile_bytes: Callable[[Heads], int]) -> None:
        """Says what this engine does, once its layers are built: see `engine_info`."""
        parallel, cache_dtype = self.vllm_config.parallel_config, self.vllm_config.cache_config.cache_dtype
        stage, rank = divmod(parallel.rank, parallel.tensor_parallel_size)
        sparse = {name: layer for name, layer in self.attention_layers().items() if self.dense_reasons[name] is None}
        if rank or self.published:
            return
        self.published = True
        heads: list[Heads] = [layer.impl.heads for layer in sparse.values()]  # type: ignore[attr-defined]
        dtype = str(self.vllm_config.model_config.dtype).removeprefix("torch.")
        dense: dict[str, list[int]] = {}
        for name, reason in self.dense_reasons.items():
            if reason is not None:
                dense.setdefault(reason, []).append(extract_layer_index(name))
        facts = {
            "kv_budget": self.config.kv_budget,
            "min_kv_budget": self.config.min_budget,
            "min_context": self.config.min_context,
            "selector": self.config.selector,
            "page_size": self.config.page_size,
            "summary_bytes": max((tile_bytes(h) / h.pages_of_tile for h in heads), default=0),
            "sparse": list(map(extract_layer_index, sparse)),
            "dense": dense,
            "kv_cache_dtype": dtype if cache_dtype == "auto" else cache_dtype,
            "device": current_platform.get_device_name(),
            "tensor_parallel": parallel.tensor_parallel_size,
        }
        if not sparse:
            logger.warning(
                "Sparse attention does nothing for these layers, which all stay dense (%s): remove %s from "
                "additional_config.",
                "; ".join(f"{reason}: {ranges(layers)}" for reason, layers in dense.items()),
                KEY,
            )
        publish(self.vllm_config, stage, facts)

    def _layer_budgets(self, budget: int) -> tuple[int, int]:
        """A KV budget in tokens as it is for the model's first layer, and for each other one."""
        sparse = [name for name, reason in self.dense_reasons.items() if reason is None]
        return self.selector.layer_budgets(budget, len(sparse), any(map(is_first, sparse)))


def is_first(layer_name: str) -> bool:
    """Whether this is the model's first layer."""
    return extract_layer_index(layer_name) == 0


def engine_of(vllm_config: VllmConfig) -> Engine | None:
    """The engine of a configuration; None where it does not ask for sparse attention. Raises ConfigError.

    It is kept on the compilation_config, which has the layers: vLLM makes other VllmConfigs of the same engine for
    parts of a model, all with this one.
    """
    owner: Any = vllm_config.compilation_config
    if not hasattr(owner, ATTRIBUTE):
        config = from_additional_config(vllm_config.additional_config)
        setattr(owner, ATTRIBUTE, config and Engine(vllm_config, config))
    engine: Engine | None = getattr(owner, ATTRIBUTE)
    return engine


def own_cache_dtype(dtype: Any) -> str:
    """What to add for a KV cache in the model's own type: vLLM's option knows 16-bit types only."""
    if dtype in (torch.bfloat16, torch.float16):
        return f"add --kv-cache-dtype {str(dtype).removeprefix('torch.')}"
    return "add --dtype bfloat16 --kv-cache-dtype bfloat16"


def check_engine(vllm_config: VllmConfig, more: Sequence[tuple[bool, str]] = ()) -> None:
    """Refuses engines whose KV cache sparse attention cannot follow. Raises ConfigError.

    more: further (refused, reason) of one platform.
    """
    model, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    cache_dtypes = ("auto", str(model.dtype).removeprefix("torch."))
    refusals = [
        (model.use_mla, "does not support MLA models"),
        (model.is_encoder_decoder, "does not support encoder-decoder models"),
        (
            cache.cache_dtype not in cache_dtypes,
            f"reads a KV cache of the model's own {cache_dtypes[1]} only, not of {cache.cache_dtype}, as "
            f"--kv-cache-dtype or the checkpoint says: {own_cache_dtype(model.dtype)}",
        ),
        (
            cache.user_specified_block_size and cache.block_size % BLOCK != 0,
            f"needs KV blocks of a multiple of {BLOCK} tokens: remove --block-size or set it to {BLOCK}",
        ),
        (
            cache.kv_offloading_size is not None,
            "does not see what is loaded back into the cache: remove --kv-offloading-size",
        ),
        (
            vllm_config.kv_transfer_config is not None,
            "does not see what a KV connector writes to the cache: remove --kv-transfer-config",
        ),
        (
            parallel.decode_context_parallel_size > 1 or parallel.prefill_context_parallel_size > 1,
            "does not support context parallelism: use tensor, pipeline or data parallelism",
        ),
        (
            parallel.pipeline_parallel_size > 1 and vllm_config.use_v2_model_runner,
            "with pipeline parallelism needs vLLM's first model runner, since its second one tells the last stage "
            "alone what a request asks for: set VLLM_USE_V2_MODEL_RUNNER=0",
        ),
        *more,
    ]
    for refused, reason in refusals:
        if refused:
            otherwise = ", or" if ": " in reason else ":"  # advice stands behind a colon
            raise ConfigError(f"Sparse attention {reason}{otherwise} remove {KEY} from additional_config.")
    if vllm_config.speculative_config is not None and not vllm_config.use_v2_model_runner:
        logger.warning_once(
            "vLLM loads no logits processors with speculative decoding, so the kv_budget of single requests is not "
            "followed: all have that of %s.",
            KEY,
        )
