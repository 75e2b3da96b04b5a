"""Multi-head latent attention, and the indexer of DeepSeek's sparse attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.families.parts import Part, dense
from kinetics_serve.cost.layers import SCALED_ELEMENTS, IndexLayers, LatentLayers

HasIndexer = Callable[[Config, int], bool]


@dataclass(frozen=True)
class LatentAttention:
    """Low-rank queries where ``q_lora_rank`` is given, latents of keys and values, and an indexer where ``indexer``
    says that a layer has its own (the layers between use its selection)."""

    indexer: HasIndexer | None = None
    query_norm: bool = True
    gate: bool = False

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
        rank, latent = config.optional("q_lora_rank"), config.count("kv_lora_rank")
        rope, nope = config.whole("qk_rope_head_dim"), config.count("qk_nope_head_dim")
        value = config.count("v_head_dim")
        config.ignore("num_key_value_heads", "head_dim", "qk_head_dim")  # what the sizes above make of them
        query = heads * (nope + rope)
        weights = hidden * query if rank is None else hidden * rank + rank + rank * query
        weights += hidden * (latent + rope) + latent + latent * heads * (nope + value) + heads * value * hidden
        if config.flag("attention_bias"):
            weights += (rank or 0) + latent + rope + hidden
        if self.indexer is None:
            return dense(weights, LatentLayers(1, heads, latent, rope, nope, value))
        best = config.count("index_topk")
        part = dense(weights, LatentLayers(1, heads, latent, rope, nope, value, best))
        return part + self._indexer(config, hidden, rank) if self.indexer(config, index) else part

    def _indexer(self, config: Config, hidden: int, rank: int | None) -> Part:
        if rank is None:
            raise config.refuse("an indexer, but no q_lora_rank")
        heads, size = config.count("index_n_heads"), config.count("index_head_dim")
        weights = rank * heads * size + hidden * size + 2 * size + hidden * heads
        token_bytes = size + 4 * -(-size // SCALED_ELEMENTS)  # vLLM keeps them in fp8, with fp32 scales
        return dense(weights, IndexLayers(1, heads, size, token_bytes))


def every_layer(config: Config, index: int) -> bool:
    return True


def glm_indexer(config: Config, index: int) -> bool:
    """GLM-5.2: a list, a pattern, or every so-manieth layer has an indexer of its own."""
    types = config.listed("indexer_types", length=config.layers)
    pattern = config.value("index_topk_pattern")
    frequency = max(config.whole("index_topk_freq", default=1), 1)
    offset = config.whole("index_skip_topk_offset", default=2)
    if types is None and pattern is not None:
        names = {"F": "full", "S": "shared"}
        types = (
            [names.get(each) for each in pattern] if isinstance(pattern, str) else config.listed("index_topk_pattern")
        )
    if types is None:
        return max(index - offset + 1, 0) % frequency == 0
    if len(types) != config.layers or types[index] not in ("full", "shared"):
        raise config.refuse(
            f"indexer_types of {len(types)}, expected full or shared for each of {config.layers} layers"
        )
    if types[0] != "full":
        raise config.refuse("indexer_types that begin with a shared one")
    return bool(types[index] == "full")
