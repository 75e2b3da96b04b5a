"""What Gemma 3n and 4 have and no other family: shared KV, per-layer embeddings, heads of two shapes."""

from __future__ import annotations

from dataclasses import dataclass

from kinetics_serve.cost.families.attention import FULL, Attention, Heads, heads, limits
from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.families.feed import Mixture, Mlp
from kinetics_serve.cost.families.kinds import every
from kinetics_serve.cost.families.parts import NOTHING, Part, dense
from kinetics_serve.cost.layers import AttentionLayers


@dataclass(frozen=True)
class GemmaAttention:
    """Gemma 3n and 4: the last ``num_kv_shared_layers`` read the KV of earlier ones; full layers of Gemma 4 have heads
    of their own, whose values may be its keys (vLLM stores both)."""

    globals: bool

    def part(self, config: Config, index: int, kind: str) -> Part:
        shape = heads(config)
        shares_matrix = False
        if self.globals:
            shares_matrix = config.flag("attention_k_eq_v") and kind == FULL
            kv, size = config.optional("num_global_key_value_heads"), config.count("global_head_dim", default=512)
            own = config.of_one_layer(index)
            if own is not None:
                kv, size = (
                    own.count("num_key_value_heads", default=shape.kv),
                    own.count("head_dim", default=shape.key_size),
                )
                own.check_all_read()
                shape = Heads(shape.query, kv, size, size)
            elif kind == FULL:
                shape = Heads(shape.query, kv if kv is not None and shares_matrix else shape.kv, size, size)
        stores = index < config.layers - config.whole("num_kv_shared_layers", default=0)
        layer = AttentionLayers(1, shape.query, shape.kv, shape.key_size, *limits(config, kind), stores=stores)
        weights = Attention(head_norms="head").parameters(config, shape)
        hidden = config.count("hidden_size")
        if not stores:
            weights -= hidden * 2 * shape.key_width + shape.key_size
            if config.flag("attention_bias"):
                weights -= 2 * shape.key_width
        elif shares_matrix:
            weights -= hidden * shape.value_width
        return dense(weights, layer)


@dataclass(frozen=True)
class GemmaFeed:
    """Gemma 4's MLP, twice as wide where KV is shared if ``use_double_wide_mlp``, and beside it a mixture with norms of
    its own; and what both 3n and 4 do with their per-layer embedding."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, width = config.count("hidden_size"), config.of_layer(index, "intermediate_size")
        shares = index >= config.layers - config.whole("num_kv_shared_layers", default=0)
        if config.flag("use_double_wide_mlp") and shares:
            width *= 2
        part = dense(Mlp().parameters(config, width)) + per_layer_input(config)
        if config.flag("enable_moe_block"):
            experts = Mixture(experts=("num_experts",), routed=("top_k_experts", "num_experts_per_tok"))
            part += experts.part(config, index, kind) + dense(4 * hidden + config.count("num_experts"))
        else:
            config.ignore("num_experts", "top_k_experts", "moe_intermediate_size")
        return part


def per_layer_input(config: Config) -> Part:
    hidden, width = config.count("hidden_size"), config.optional("hidden_size_per_layer_input")
    return NOTHING if width is None else dense(2 * hidden * width + hidden)


def per_layer_projection(config: Config) -> int:
    """From the token's embedding to what every layer gets of it, and its norm."""
    width = config.optional("hidden_size_per_layer_input")
    return 0 if width is None else config.count("hidden_size") * config.layers * width + width


def per_layer_table(config: Config) -> int:
    width, rows = config.optional("hidden_size_per_layer_input"), config.whole("vocab_size_per_layer_input", default=0)
    return 0 if width is None else rows * config.layers * width


@dataclass(frozen=True)
class Gemma3nFeed:
    """An MLP of a width for each layer, AltUp over several streams of the residual, and LAuReL's low-rank bypass."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, streams, rank = config.count("hidden_size"), altup(config), config.count("laurel_rank")
        width = config.of_layer(index, "intermediate_size")
        config.count("hidden_size_per_layer_input")  # its norm is there without it
        streams_weights = streams**2 + streams**3 + streams * hidden + 2 * hidden
        laurel = 2 * rank * hidden + hidden
        config.ignore("altup_active_idx", "altup_coef_clip", "altup_correct_scale", "activation_sparsity_pattern")
        return dense(Mlp().parameters(config, width) + streams_weights + laurel) + per_layer_input(config)


def altup(config: Config) -> int:
    """Streams of the residual."""
    return config.count("altup_num_inputs")


def gemma3n_extra(config: Config) -> int:
    hidden = config.count("hidden_size")
    return per_layer_projection(config) + 2 * (altup(config) - 1) * hidden * hidden


def gemma4_kinds(config: Config) -> list[str]:
    """The last layer is full whatever the pattern says."""
    kinds = every(6, "sliding_window_pattern")(config)
    return [*kinds[:-1], FULL]
