"""What a vLLM engine says of itself on its `/metrics`: how it attends, and how it keeps keys and values.

The vLLM plugin `sparse_backend` tells of sparse attention there, and where it says nothing, attention is dense. vLLM
itself tells of its KV cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, KVPolicy

SPARSE = "kinetics_sparse_attention_info"
CACHE = "vllm:cache_config_info"

ELEMENT_BYTES = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
    "fp8_ds_mla": 1,
}
"""By vLLM's name for the dtype of a KV cache. Its others keep scales beside the elements, and have no price yet."""


@dataclass(frozen=True, slots=True)
class SparseAttention:
    """What the plugin does in an engine."""

    kv_budget: int
    """Tokens that a request attends to unless it asks for another budget."""

    min_kv_budget: int
    """Smaller budgets are raised to this."""

    min_context: int
    """Requests stay dense up to this many tokens of context."""

    page_size: int
    summary_bytes: float
    """Read for every page and KV head."""

    layers: int
    """That are sparse."""

    dense_layers: str
    """Which are not, and why: as the plugin words it."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """One engine, or several of one server that are alike."""

    sparse: SparseAttention | None = None
    """None is dense."""

    kv_cache_dtype: str | None = None
    """None where it follows the checkpoint, or nothing is said."""

    kv_block: int | None = None
    """Tokens that the prefix cache finds together; None where nothing is found, or nothing is said."""

    device: str | None = None
    """As its driver calls it."""

    vllm: str | None = None
    """Its version; None where it doesn't say."""

    tensor_parallel: int = 1
    """Devices that share a layer."""

    def architecture(self, checkpoint: Architecture) -> Architecture:
        """The checkpoint's model as this engine runs it. Raises ValueError for a KV cache that has no price."""
        known = checkpoint
        if self.kv_cache_dtype is not None:
            if self.kv_cache_dtype not in ELEMENT_BYTES:
                expected = ", ".join(ELEMENT_BYTES)
                raise ValueError(f"its KV cache is of {self.kv_cache_dtype}, and only {expected} have a price")
            known = replace(known, kv_bytes=ELEMENT_BYTES[self.kv_cache_dtype])
        if self.tensor_parallel > 1:
            known = known.on_devices(self.tensor_parallel)
        return known.with_sparse_layers(self.sparse.layers) if self.sparse is not None else known

    def kv_policy(self, known: Architecture | None) -> KVPolicy:
        """How a request attends that asks for nothing else. known: the model, as this engine runs it."""
        if self.sparse is None:
            return DENSE
        vectors = 0.0
        if known is not None:
            attention = (group for group in known.layers if isinstance(group, AttentionLayers))
            head_size = max((group.head_size for group in attention if group.selectable), default=1)
            vectors = self.sparse.summary_bytes / (head_size * known.kv_bytes)
        return KVPolicy(self.sparse.kv_budget, self.sparse.page_size, vectors, self.sparse.min_context)

    def __str__(self) -> str:
        if self.sparse is None:
            attention = "dense attention"
        else:
            attention = f"attention to {self.sparse.kv_budget} tokens in {self.sparse.layers} layers"
            attention += f" (dense: {self.sparse.dense_layers})" if self.sparse.dense_layers else ""
        return f"{attention}, KV cache of {self.kv_cache_dtype or 'the checkpoint’s dtype'}"


def read_info(metrics: str) -> EngineInfo:
    """metrics: in Prometheus' text format. Raises ValueError where it holds something else than vLLM and the plugin
    say, or several engines that differ."""
    said: dict[str, dict[str, Mapping[str, str]]] = {}
    lines = [line for line in metrics.splitlines() if line.startswith((SPARSE, CACHE))]
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            said.setdefault(sample.labels.get("engine", ""), {})[sample.name] = sample.labels
    try:
        found = {_of_engine(engine) for engine in said.values()}
    except KeyError as error:
        raise ValueError(f"{SPARSE} has no label {error}: its vLLM plugin is of another version") from None
    if len(found) > 1:
        raise ValueError("its engines differ: " + "; ".join(sorted(map(str, found))))
    return found.pop() if found else EngineInfo()


def _of_engine(said: Mapping[str, Mapping[str, str]]) -> EngineInfo:
    cache, sparse = said.get(CACHE, {}), said.get(SPARSE)
    dtype = (sparse or {}).get("kv_cache_dtype") or cache.get("cache_dtype", "auto")
    info = EngineInfo(
        kv_cache_dtype=None if dtype == "auto" else dtype,
        kv_block=int(cache["block_size"]) if cache.get("enable_prefix_caching") == "True" else None,
    )
    if sparse is None:
        return info
    return replace(
        info,
        sparse=SparseAttention(
            int(sparse["kv_budget"]),
            int(sparse["min_kv_budget"]),
            int(sparse["min_context"]),
            int(sparse["page_size"]),
            float(sparse["summary_bytes"]),
            _count(sparse["sparse_layers"]),
            sparse["dense_layers"],
        ),
        device=sparse["device"],
        tensor_parallel=int(sparse["tensor_parallel"]),
    )


def _count(ranges: str) -> int:
    """Of layers: 0-5,7 are seven."""
    ends = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)
