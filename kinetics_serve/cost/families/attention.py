"""Softmax attention with grouped KV heads: full, sliding or in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinetics_serve.cost.families.config import Config, shown
from kinetics_serve.cost.families.parts import Part, dense
from kinetics_serve.cost.layers import AttentionLayers

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


@dataclass(frozen=True)
class Heads:
    """Query heads, KV heads, and the elements of a key and of a value, of one layer."""

    query: int
    kv: int
    key_size: int
    value_size: int

    @property
    def query_width(self) -> int:
        return self.query * self.key_size

    @property
    def key_width(self) -> int:
        return self.kv * self.key_size

    @property
    def value_width(self) -> int:
        return self.kv * self.value_size

    @property
    def output_width(self) -> int:
        return self.query * self.value_size


def heads(config: Config) -> Heads:
    """As most configs say them; as many KV heads as query heads where none are named."""
    query = config.count("num_attention_heads", "n_head", "n_heads")
    kv = config.optional("num_key_value_heads", "num_kv_heads") or query
    size = head_size(config, query)
    return Heads(query, kv, size, size)


def head_size(config: Config, query_heads: int) -> int:
    return config.optional("head_dim", "attention_head_dim") or max(config.count("hidden_size") // query_heads, 1)


def longest_context(config: Config) -> int | None:
    """In tokens. Where positions were trained for less than ``model_max_length``, that counts, as it does for vLLM."""
    if config.given.get("model_max_length"):
        return config.optional("model_max_length")
    return config.optional("max_position_embeddings", "max_seq_len", "model_max_length")


def limits(config: Config, kind: str) -> tuple[int | None, int | None]:
    """A layer's window and its chunk, in tokens; none for full attention, nor where they hold every context."""
    longest = longest_context(config)
    if kind == FULL:
        return None, None
    if kind not in (SLIDING, CHUNKED):
        raise config.refuse(f"a layer of type {shown(kind)}")
    limit = config.count("sliding_window" if kind == SLIDING else "attention_chunk_size")
    if longest is not None and limit >= longest:
        return None, None
    return (limit, None) if kind == SLIDING else (None, limit)


@dataclass(frozen=True)
class Attention:
    """Four projections, and what families add: biases (always, never, or where a key of that name says so), an RMSNorm
    of each query and key ("head": of one head's size, "all": of all heads'; ``normed`` is the key that says whether,
    where one does), sinks, and a gate of every output element (by a matrix of its own, or as a part of the queries'
    with its bias) or of every head."""

    qkv_bias: bool | str = "attention_bias"
    out_bias: bool | str = "attention_bias"
    head_norms: Literal["", "head", "all"] = ""
    normed: bool | str = True
    gate: Literal["", "element", "query", "head"] = ""
    sinks: bool = False

    def part(self, config: Config, index: int, kind: str) -> Part:
        shape = heads(config)
        layer = AttentionLayers(1, shape.query, shape.kv, shape.key_size, *limits(config, kind))
        return dense(self.parameters(config, shape), layer)

    def parameters(self, config: Config, shape: Heads, inner: int | None = None) -> int:
        hidden = config.count("hidden_size") if inner is None else inner
        qkv = shape.query_width + shape.key_width + shape.value_width
        weights = hidden * (qkv + shape.output_width)
        if switched_on(config, self.qkv_bias):
            weights += qkv + (shape.output_width if self.gate == "query" else 0)
        if switched_on(config, self.out_bias):
            weights += hidden
        if self.head_norms and switched_on(config, self.normed):
            weights += 2 * shape.key_size if self.head_norms == "head" else shape.query_width + shape.key_width
        if self.gate:
            weights += hidden * (shape.query if self.gate == "head" else shape.output_width)
        return weights + (shape.query if self.sinks else 0)


def switched_on(config: Config, part: bool | str) -> bool:
    """Whether a bias or a norm is there: always, never, or where a key of that name says so."""
    return config.flag(part) if isinstance(part, str) else part
