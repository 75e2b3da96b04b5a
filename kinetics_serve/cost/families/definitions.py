"""Families of models that are built of more than a line says, and what they share."""

from __future__ import annotations

from dataclasses import replace

from kinetics_serve.cost.families import gemma, special
from kinetics_serve.cost.families.attention import FULL, Attention
from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.families.family import Family
from kinetics_serve.cost.families.feed import IsMixture, Mixture, Mlp, first_dense, listed_or, qwen_mixture
from kinetics_serve.cost.families.kinds import (
    LINEAR,
    MIXTURE,
    MLP,
    all_slide,
    either,
    every,
    flagged,
    full,
    grouped,
    last_slide,
    nemotron,
    no_rule,
    typed,
)
from kinetics_serve.cost.families.latent import LatentAttention, every_layer, glm_indexer
from kinetics_serve.cost.families.recurrent import (
    GatedDeltaNet,
    Lightning,
    Mamba2,
    ShortConvolution,
)

LLAMA = Family(Attention(), Mlp(bias="mlp_bias"), typed(full))
PLAIN = Family(Attention(qkv_bias=False, out_bias=False), Mlp())
QWEN2 = Family(Attention(qkv_bias=True, out_bias=False), Mlp(), typed(last_slide))
QWEN3 = Family(Attention(head_norms="head"), Mlp(), typed(last_slide))

QWEN_EXPERTS = Mixture(mixture=qwen_mixture, optional=True)
QWEN3_MOE = replace(QWEN3, feed=QWEN_EXPERTS, ignored=("shared_expert_intermediate_size", "qkv_bias", "use_qk_norm"))
QWEN2_MOE = replace(
    QWEN2,
    mixer=Attention(qkv_bias="qkv_bias", out_bias=False),
    feed=replace(QWEN_EXPERTS, shared_width=("shared_expert_intermediate_size",), shared_gate=True),
)
GATED_ATTENTION = Attention(head_norms="head", gate="query")
QWEN3_NEXT = Family(
    {LINEAR: GatedDeltaNet(), FULL: GATED_ATTENTION},
    replace(QWEN_EXPERTS, shared_width=("shared_expert_intermediate_size",), shared_gate=True),
    every(4, "full_attention_interval", other=LINEAR),
    ignored=("attn_output_gate", "output_gate_type"),
)
QWEN3_5 = replace(QWEN3_NEXT, feed=Mlp())

MISTRAL = replace(PLAIN, kinds=typed(all_slide))
MIXTRAL_EXPERTS = Mixture(experts=("num_local_experts", "num_experts"), width=("intermediate_size",))
GEMMA = replace(PLAIN, mixer=Attention())
GEMMA2 = replace(
    GEMMA,
    kinds=every(2, "sliding_window_pattern"),
    norms=4,
    repeated={"sliding_window_size": "sliding_window"},
)
GEMMA3 = replace(
    GEMMA2, mixer=Attention(head_norms="head"), kinds=every(6, "sliding_window_pattern", "_sliding_window_pattern")
)
GEMMA3N = Family(
    gemma.GemmaAttention(globals=False),
    gemma.Gemma3nFeed(),
    every(5),
    norms=4,
    extra=gemma.gemma3n_extra,
    tables=gemma.per_layer_table,
)
GEMMA4 = Family(
    gemma.GemmaAttention(globals=True),
    gemma.GemmaFeed(),
    gemma.gemma4_kinds,
    norms=4,
    extra=gemma.per_layer_projection,
    tables=gemma.per_layer_table,
)
PHI3 = replace(PLAIN, kinds=typed(all_slide), fixed={"full_attn_mod": 1})
HUNYUAN = Family(
    Attention(head_norms="head"),
    Mlp(),
    ignored=("cla_share_factor", "dense_list", "org_vocab_size"),
    fixed={"use_cla": False, "use_qk_norm": True},
)


def deepseek_mixture(first: int) -> IsMixture:
    """Every ``moe_layer_freq``-th layer from ``first_k_dense_replace`` on; ``first`` where that is not told."""

    def decide(config: Config, index: int) -> bool:
        begun = index >= config.whole("first_k_dense_replace", default=first)
        return begun and index % config.count("moe_layer_freq", default=1) == 0

    return decide


DEEPSEEK_EXPERTS = Mixture(
    experts=("n_routed_experts", "num_local_experts", "num_experts"),
    shared=("n_shared_experts",),
    mixture=listed_or("mlp_layer_types", deepseek_mixture(0)),
)
DEEPSEEK = Family(LatentAttention(), DEEPSEEK_EXPERTS, full, ignored=("head_dim",))
DEEPSEEK_DSA = replace(
    DEEPSEEK, mixer=LatentAttention(indexer=every_layer), ignored=("indexer_rope_interleave", "layer_types")
)
GLM_DSA = replace(DEEPSEEK_DSA, mixer=LatentAttention(indexer=glm_indexer))


ERNIE_MIXTURE = Mixture(
    experts=("moe_num_experts", "num_experts"),
    routed=("moe_k", "num_experts_per_tok"),
    shared=("moe_num_shared_experts",),
    correction=True,
    mixture=lambda config, index: (
        (index + 1) % config.count("moe_layer_interval", default=1) == 0
        and config.whole("moe_layer_start_index", default=0) <= index <= ernie_end(config)
    ),
)


def ernie_end(config: Config) -> int:
    """The last layer that may be a mixture; −1 or none is the model's last."""
    end = config.value("moe_layer_end_index")
    return config.layers - 1 if end in (None, -1) else config.whole("moe_layer_end_index")


LLAMA4_EXPERTS = Mixture(
    experts=("num_local_experts",),
    width=("intermediate_size",),
    shared=(),
    shared_width=("intermediate_size",),
    dense=Mlp(width=("intermediate_size_mlp",)),
    mixture=lambda config, index: index in llama4_mixtures(config),
)


def llama4_mixtures(config: Config) -> set[int]:
    config.count("num_local_experts")  # without experts there would still be the shared one
    step = config.count("interleave_moe_layer_step", default=1)
    listed = config.listed("moe_layers")
    if listed is None:
        return set(range(step - 1, config.layers, step))
    if any(isinstance(each, bool) or not isinstance(each, int) for each in listed):
        raise config.refuse("moe_layers of other values than layers' numbers")
    return set(listed)


GRANITE_SHARED = Mlp(width=("shared_intermediate_size",))
GRANITE_HYBRID = Family(
    {LINEAR: Mamba2(), FULL: Attention()},
    Mixture(
        experts=("num_local_experts",),
        width=("intermediate_size",),
        shared_width=("shared_intermediate_size",),
        dense=GRANITE_SHARED,
        optional=True,
    ),
    typed(lambda config: [LINEAR] * config.layers, "layers_block_type"),
    ignored=("intermediate_size", "position_embedding_type", "normalization_function"),
)
NEMOTRON_MAMBA = Mamba2(
    heads="mamba_num_heads",
    head_dim="mamba_head_dim",
    groups="n_groups",
    state="ssm_state_size",
    taps="conv_kernel",
    conv_bias="use_conv_bias",
    bias="use_bias",
    default_bytes=4,  # vLLM's choice where the config has none
)
NEMOTRON_H = Family(
    {
        LINEAR: NEMOTRON_MAMBA,
        FULL: Attention(qkv_bias=False, out_bias=False),
        MLP: Mlp(matrices=2),
        MIXTURE: special.LatentMixture(),
    },
    None,
    nemotron,
    norms=1,
    ties=False,
)
FALCON_H1 = Family(
    special.Both(Attention(), Mamba2(bias=False, norm="mamba_rms_norm")),
    Mlp(bias="mlp_bias"),
    ignored=(
        "mamba_norm_before_gate", "projectors_bias", "key_multiplier", "lm_head_multiplier", "attention_in_multiplier",
        "attention_out_multiplier", "mlp_multipliers", "ssm_multipliers", "ssm_in_multiplier", "ssm_out_multiplier",
        "mamba_use_mlp", "attn_layer_indices", "mlp_expansion_factor",
    ),
)  # fmt: skip
LFM2_EXPERTS = Mixture(mixture=first_dense("num_dense_layers"))
LFM2_MOE = Family(
    {LINEAR: ShortConvolution(), FULL: Attention(qkv_bias=False, out_bias=False, head_norms="head")},
    LFM2_EXPERTS,
    typed(no_rule),
    ignored=("use_expert_bias",),
)

MINIMAX_EXPERTS = replace(MIXTRAL_EXPERTS, routed=("num_experts_per_tok",))
MINIMAX_M1 = Family(
    {LINEAR: Lightning(), FULL: Attention(qkv_bias=False, out_bias=False)},
    MINIMAX_EXPERTS,
    either("attn_type_list", flagged("attn_type_list", FULL, LINEAR), every(2, other=LINEAR)),
    ignored=("block_size", "shared_intermediate_size", "postnorm", "layernorm_full_attention_alpha"),
)
MINIMAX_M2 = Family(
    Attention(qkv_bias=False, out_bias=False, head_norms="all"),
    MINIMAX_EXPERTS,
    either("attn_type_list", flagged("attn_type_list", FULL, LINEAR), typed(full)),
    ignored=("use_qk_norm", "qk_norm_type", "use_routing_bias", "use_mtp"),
)
MINIMAX_M3 = Family(
    {FULL: Attention(head_norms="head"), special.SPARSE: special.BlockSparseAttention()},
    Mixture(
        experts=("num_local_experts",),
        width=("intermediate_size", "moe_intermediate_size"),
        shared=("n_shared_experts",),
        shared_width=("shared_intermediate_size",),
        dense=Mlp(width=("dense_intermediate_size",)),
        mixture=listed_or("mlp_layer_types", listed_or("moe_layer_freq", lambda config, index: True, 1, 0)),
    ),
    special.minimax_m3_kinds,
    ignored=(
        "use_qk_norm",
        "qk_norm_type",
        "use_routing_bias",
        "use_gemma_norm",
        "attention_output_gate",
        "first_k_dense_replace",
    ),
)
BAILING_EXPERTS = Mixture(
    shared=("num_shared_experts", "n_shared_experts"),
    shared_width=(),
    mixture=first_dense("first_k_dense_replace"),
)
BAILING_LINEAR = Family(
    {LINEAR: Lightning(head_norms=True), FULL: Attention(qkv_bias=False, out_bias=False, head_norms="head")},
    BAILING_EXPERTS,
    grouped,
    ignored=("group_norm_size", "linear_silu", "moe_shared_expert_intermediate_size", "use_qk_norm"),
)
MIMO_V2 = Family(
    special.MiMoAttention(),
    replace(
        DEEPSEEK_EXPERTS,
        mixture=listed_or("mlp_layer_types", listed_or("moe_layer_freq", lambda config, index: index > 0, 1, 0)),
    ),
    either(
        "hybrid_layer_pattern",
        flagged("hybrid_layer_pattern", "sliding_attention", FULL),
        typed(
            lambda config: [
                FULL if not index or (index + 1) % 6 == 0 else "sliding_attention" for index in range(config.layers)
            ]
        ),
    ),
)
KIMI_EXPERTS = Mixture(
    experts=("num_experts", "num_local_experts"),
    routed=("num_experts_per_token", "num_experts_per_tok"),
    shared=("num_shared_experts", "n_shared_experts"),
    mixture=listed_or("mlp_layer_types", deepseek_mixture(1)),
)

STEP = Family(
    special.StepAttention(),
    Mixture(
        experts=("moe_num_experts", "n_routed_experts"),
        routed=("moe_top_k", "num_experts_per_tok"),
        shared_width=("share_expert_dim", "share_expert_dims"),
        mixture=special.step_mixture,
    ),
    special.step_kinds,
    ignored=(
        "use_moe_router_bias", "need_fp32_gate", "moe_router_activation", "norm_expert_weight",
        "use_qk_norm", "use_rope_layers", "yarn_only_types", "partial_rotary_factors", "swiglu_limits",
        "swiglu_limits_shared", "att_impl_type", "sink", "zero_centered",
    ),
)  # fmt: skip
