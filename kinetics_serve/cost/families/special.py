"""Parts that one family has and no other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kinetics_serve.cost.families.attention import FULL, SLIDING, Attention, Heads, heads, limits
from kinetics_serve.cost.families.config import Config, shown
from kinetics_serve.cost.families.feed import Mlp
from kinetics_serve.cost.families.kinds import LINEAR, typed
from kinetics_serve.cost.families.parts import NOTHING, Block, Part, dense
from kinetics_serve.cost.layers import AttentionLayers, IndexLayers


@dataclass(frozen=True)
class Both:
    """Two parts side by side in every layer: Falcon-H1's attention and Mamba, a mixture beside an MLP."""

    first: Block
    second: Block

    def part(self, config: Config, index: int, kind: str) -> Part:
        return self.first.part(config, index, kind) + self.second.part(config, index, kind)


@dataclass(frozen=True)
class LagunaAttention:
    """As many query heads as each layer says."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        shape = heads(config)
        each = config.listed("num_attention_heads_per_layer", length=config.layers)
        if each is not None:
            shape = replace(shape, query=config.of_layer(index, "num_attention_heads_per_layer"))
        gate = config.value("gating")
        if gate not in (True, "per-head") or shape.query < 1:
            raise config.refuse(f"gating {shown(gate)}, {shape.query} query heads")
        attention = Attention(head_norms="head", gate="head")
        layer = AttentionLayers(1, shape.query, shape.kv, shape.key_size, *limits(config, kind))
        return dense(attention.parameters(config, shape), layer)


@dataclass(frozen=True)
class MiMoAttention:
    """Heads of one shape in full layers and of another in sliding ones, values smaller than keys, sinks where asked."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        full = heads(config)
        full = replace(full, value_size=config.count("v_head_dim", default=full.key_size))
        sliding = Heads(
            config.count("swa_num_attention_heads", default=full.query),
            config.count("swa_num_key_value_heads", default=2 * full.kv),
            config.count("swa_head_dim", default=full.key_size),
            config.count("swa_v_head_dim", default=full.value_size),
        )
        config.value("sliding_window", "sliding_window_size", "attention_chunk_size")  # three names for one thing
        shape = sliding if kind == SLIDING else full
        sinks = config.flag("add_swa_attention_sink_bias", default=True), config.flag("add_full_attention_sink_bias")
        attention = Attention(out_bias=False, sinks=sinks[0] if kind == SLIDING else sinks[1])
        size = None if shape.value_size == shape.key_size else shape.value_size
        layer = AttentionLayers(1, shape.query, shape.kv, shape.key_size, *limits(config, kind), value_size=size)
        return dense(attention.parameters(config, shape), layer)


@dataclass(frozen=True)
class BlockSparseAttention:
    """MiniMax-M3: layers that attend to the best blocks, which index heads with one key a token choose."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        attention = Attention(head_norms="head")
        shape, hidden = heads(config), config.count("hidden_size")
        if config.value("sparse_attention_config") is not None:
            sparse = config.part("sparse_attention_config")
            sparse.ignore(
                "sparse_attention_freq", "sparse_disable_index_value", "sparse_score_type", "sparse_init_block"
            )
            sparse.ignore("sparse_local_block", "use_sparse_attention")
            names = ("sparse_topk_blocks", "sparse_block_size", "sparse_num_index_heads", "sparse_index_dim")
        else:
            sparse, names = config, ("index_topk_blocks", "index_block_size", "index_n_heads", "index_head_dim")
        blocks, block, index_heads, size = map(sparse.count, names)
        if sparse is not config:
            sparse.check_all_read()
        layer = AttentionLayers(1, shape.query, shape.kv, shape.key_size, best=blocks * block)
        weights = attention.parameters(config, shape) + hidden * size * (index_heads + 1) + 2 * size
        return dense(weights, layer, IndexLayers(1, index_heads, size, 2 * size))


SPARSE = "minimax_m3_sparse"


def minimax_m3_kinds(config: Config) -> list[str]:
    types = config.listed("layer_types", length=config.layers)
    if types is not None:
        return [kind if isinstance(kind, str) else repr(kind) for kind in types]
    if config.value("sparse_attention_config") is None:
        return [FULL] * config.layers
    sparse = config.part("sparse_attention_config")
    flags = sparse.listed("sparse_attention_freq", length=config.layers)
    if flags is None or any(flag not in (0, 1) for flag in flags):
        raise config.refuse("sparse_attention_config without a sparse_attention_freq of 0 and 1 for each layer")
    used = sparse.flag("use_sparse_attention", default=True)
    return [SPARSE if flag and used else FULL for flag in flags]


@dataclass(frozen=True)
class LatentMixture:
    """Nemotron-H's mixture of MLPs of two matrices, which ``moe_latent_size`` may put into a smaller space."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, latent = config.count("hidden_size"), config.optional("moe_latent_size")
        experts, routed = config.count("n_routed_experts"), config.count("num_experts_per_tok")
        if routed > experts:
            raise config.refuse(f"num_experts_per_tok {routed} of {experts} experts")
        expert = Mlp(matrices=2).parameters(config, config.count("moe_intermediate_size"), latent or hidden)
        if config.whole("n_shared_experts", default=1) != 1:
            raise config.refuse("n_shared_experts other than 1")
        shared = config.count("moe_shared_expert_intermediate_size")
        always = hidden * experts + Mlp(matrices=2).parameters(config, shared)
        if latent is not None:
            always += 2 * hidden * latent
        config.ignore("moe_shared_expert_overlap")
        return Part(experts * expert + always, routed * expert + always)


@dataclass(frozen=True)
class NemotronNas:
    """Llama-Nemotron: each layer's attention and MLP, of a width of its own, or none, as a search found enough."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        blocks = config.listed("block_configs", length=config.layers) or ()
        if len(blocks) != config.layers or not isinstance(blocks[index], dict):
            raise config.refuse("no block_configs of an object for each layer")
        block = Config(blocks[index], {}, f"{config.name}, block_configs[{index}]", config.model_type)
        attention, feed = block.part("attention"), block.part("ffn")
        hidden, query = config.count("hidden_size"), config.count("num_attention_heads")
        part = self._attention(attention, hidden, query) + self._feed(feed, hidden)
        for read in (block, attention, feed):
            read.check_all_read()
        config.ignore("intermediate_size", "num_key_value_heads")
        return part

    def _attention(self, config: Config, hidden: int, query: int) -> Part:
        group = config.optional("n_heads_in_group")
        if config.flag("no_op"):
            return NOTHING
        if config.flag("replace_with_linear"):
            raise config.refuse("replace_with_linear")
        if group is None or query % group:
            raise config.refuse(f"n_heads_in_group {group} of {query} heads")
        size = hidden // query
        width = query // group * size
        weights = 2 * hidden * hidden + 2 * hidden * width + hidden
        return dense(weights, AttentionLayers(1, query, query // group, size))

    def _feed(self, config: Config, hidden: int) -> Part:
        multiple = config.value("ffn_mult")
        if config.flag("no_op"):
            return NOTHING
        if config.flag("replace_with_linear"):
            raise config.refuse("replace_with_linear")
        if isinstance(multiple, bool) or not isinstance(multiple, int | float) or not 0 < multiple < 64:
            raise config.refuse(f"ffn_mult {multiple!r}, expected a number")
        width = -(-int(2 * multiple * hidden / 3) // 256) * 256  # vLLM's _ffn_mult_to_intermediate_size
        return dense(3 * hidden * width + hidden)


@dataclass(frozen=True)
class Lfm2Mlp:
    """LFM2's MLP: two thirds of the width that the config says, rounded up."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        width = config.count("intermediate_size", "block_ff_dim")
        multiplier = config.value("block_ffn_dim_multiplier")
        if config.flag("block_auto_adjust_ff_dim", default=True):
            width = 2 * width // 3
            if multiplier is not None:
                if isinstance(multiplier, bool) or not isinstance(multiplier, int | float) or not 0 < multiplier < 64:
                    raise config.refuse(f"block_ffn_dim_multiplier {shown(multiplier)}, expected a number")
                width = int(multiplier * width)
                step = config.count("block_multiple_of", default=256)
                width = -(-width // step) * step
        config.ignore("block_multiple_of", "block_ffn_dim_multiplier")
        return dense(Mlp().parameters(config, width))


def lfm2_kinds(config: Config) -> list[str]:
    """A list, or the numbers of the layers that attend to everything."""
    numbers = config.listed("full_attn_idxs")
    if any(isinstance(each, bool) or not isinstance(each, int) for each in numbers or ()):
        raise config.refuse("full_attn_idxs of other values than layers' numbers")
    rule = [FULL if numbers is None or index in numbers else LINEAR for index in range(config.layers)]
    return typed(lambda config: rule)(config)


def stablelm_norms(config: Config) -> int:
    """Each layer's second LayerNorm, which is not there where attention and MLP run side by side."""
    return 0 if config.flag("use_parallel_residual") else 2 * config.count("hidden_size") * config.layers


@dataclass(frozen=True)
class LongcatFeed:
    """LongCat-Flash: two MLPs, and a mixture whose router may also choose experts that do nothing."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, experts = config.count("hidden_size"), config.count("n_routed_experts")
        idle, routed = config.whole("zero_expert_num", default=0), config.count("moe_topk", "num_experts_per_tok")
        if routed > experts:
            raise config.refuse(f"moe_topk {routed} of {experts} experts")
        if config.text("zero_expert_type") not in (None, "identity"):
            raise config.refuse(f"zero_expert_type {config.text('zero_expert_type')!r}")
        expert = Mlp().parameters(config, config.count("expert_ffn_hidden_size", "moe_intermediate_size"))
        router = hidden * (experts + idle) + (experts + idle if config.flag("router_bias") else 0)
        always = 2 * Mlp().parameters(config, config.count("ffn_hidden_size", "intermediate_size")) + router
        return Part(experts * expert + always, routed * expert + always)


@dataclass(frozen=True)
class StepAttention:
    """Step-3.5: sliding layers have query heads of their own number; every head has a gate."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        kv = config.count("num_attention_groups", "num_key_value_heads")
        shape = Heads(config.count("num_attention_heads"), kv, config.count("head_dim"), config.count("head_dim"))
        if config.value("attention_other_setting") is not None:
            other = config.part("attention_other_setting")
            sliding = other.count("num_attention_heads")
            if other.count("num_attention_groups", default=kv) != kv or other.count("head_dim") != shape.key_size:
                raise config.refuse("attention_other_setting of other KV heads")
        else:
            sliding = config.count("num_sliding_attention_heads")
        if kind == SLIDING:
            shape = replace(shape, query=sliding)
        if not config.flag("use_head_wise_attn_gate", default=True):
            raise config.refuse("use_head_wise_attn_gate false")
        attention = Attention(qkv_bias=False, out_bias=False, head_norms="head", gate="head")
        layer = AttentionLayers(1, shape.query, kv, shape.key_size, *limits(config, kind))
        return dense(attention.parameters(config, shape), layer)


def step_kinds(config: Config) -> list[str]:
    """A list, which may go on with the kinds of the layers that predict drafts."""
    types = config.listed("layer_types")
    drafts = config.whole("num_nextn_predict_layers", default=0)
    if types is None or len(types) not in (config.layers, config.layers + drafts):
        raise config.refuse(f"no layer_types for {config.layers} layers")
    return [kind if isinstance(kind, str) else repr(kind) for kind in types[: config.layers]]


def step_mixture(config: Config, index: int) -> bool:
    """The layers that a list, or text with commas, numbers; else those from the fourth on."""
    numbers, period = config.value("moe_layers_enum"), config.value("moe_every_n_layer")
    if not config.flag("use_moe", default=True) or (numbers is None and period is not None):
        raise config.refuse("use_moe false, or no moe_layers_enum")
    config.ignore("moe_layer_offset")
    if numbers is None:
        return index >= 3
    numbers = numbers.split(",") if isinstance(numbers, str) else config.listed("moe_layers_enum") or ()
    if not all(isinstance(each, str | int) and str(each).strip().isdecimal() for each in numbers):
        raise config.refuse("moe_layers_enum of other values than layers' numbers")
    return index in {int(each) for each in numbers}
