"""transformers' own models in a small form, on the meta device: what our parameter counts are held against."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

logging.set_verbosity_error()
warnings.filterwarnings("ignore")

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "num_kv_shared_layers": 2,
    "num_layers": 8,
    "n_shared_experts": 1,
    "expert_ffn_hidden_size": 24,
    "zero_expert_num": 0,
    "ffn_hidden_size": 96,
    "moe_intermediate_size": 24,
    "num_experts": 12,
    "num_local_experts": 12,
    "n_routed_experts": 12,
    "moe_num_experts": 12,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 20,
    "q_lora_rank": 28,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_d_ssm": 128,
    "mamba_d_state": 12,
    "ssm_state_size": 12,
    "n_groups": 2,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
    "shared_expert_intermediate_size": 36,
    "shared_intermediate_size": 36,
}

KEYS = (
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "use_bias",
    "use_qk_norm",
    "qkv_bias",
    "conv_bias",
    "add_bias_linear",
    "use_qkv_bias",
    "use_sliding_window",
    "mamba_conv_bias",
    "mamba_proj_bias",
    "mamba_rms_norm",
    "attention_k_eq_v",
    "enable_moe_block",
    "use_double_wide_mlp",
    "gating",
    "parallel_attn",
    "bias",
    "new_decoder_architecture",
    "multi_query",
    "lm_head_bias",
    "qk_layernorm",
    "use_parallel_residual",
)
NUMBERS: dict[str, Any] = {
    "num_key_value_heads": 2,
    "first_k_dense_replace": 3,
    "num_dense_layers": 3,
    "n_shared_experts": 2,
    "num_shared_experts": 2,
    "decoder_sparse_step": 2,
    "mlp_only_layers": [1, 4],
    "interleave_moe_layer_step": 2,
    "num_kv_shared_layers": 3,
    "moe_layer_interval": 2,
    "moe_layer_start_index": 2,
    "moe_num_shared_experts": 2,
    "num_global_key_value_heads": 2,
    "q_lora_rank": None,
    "head_dim": 24,
    "num_local_experts": 0,
    "num_experts": 0,
    "moe_layer_freq": 2,
    "moe_latent_size": 16,
    "hidden_size_per_layer_input": 0,
    "expert_layer_period": 3,
    "attn_layer_period": 4,
    "moe_topk": [2] * 8,
}
"""What each variation changes: a flag is turned round, a number is replaced."""


def text_types() -> list[str]:
    """Every type of model that generates text."""
    return sorted(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING)


def small(model_type: str) -> dict[str, Any]:
    """A config of a type, in as small a form as its class takes."""
    kind = CONFIG_MAPPING[model_type]
    declared = getattr(kind, "__dataclass_fields__", {})
    sizes = {key: value for key, value in SIZES.items() if key in declared}
    if model_type == "nemotron_h":
        sizes = {**sizes, "hybrid_override_pattern": "ME*-ME"}
    if model_type == "lfm2_moe":
        sizes = {**sizes, "layer_types": ["conv", "conv", "full_attention", "conv"] * 2}
    return {"model_type": model_type, **sizes}


def variations(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The config, and it with one key changed, for each that its class knows."""
    yield config
    kind = CONFIG_MAPPING[config["model_type"]]
    declared = getattr(kind, "__dataclass_fields__", {})
    for key in KEYS:
        if key in declared and isinstance(declared[key].default, bool):
            yield {**config, key: not declared[key].default}
    for key, value in NUMBERS.items():
        if key in declared:
            yield {**config, key: value}


def parameters(config: dict[str, Any]) -> int | None:
    """Unique parameters of the model that transformers makes of a config; None if it makes none."""
    given = {key: value for key, value in config.items() if key != "model_type"}
    try:
        read = CONFIG_MAPPING[config["model_type"]](**given)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(read)
            model.tie_weights()
    except Exception:  # whatever a model's code raises: there is no model of this config
        return None
    return int(sum(parameter.numel() for parameter in model.parameters()))


def language_model(config: dict[str, Any]) -> tuple[int, int]:
    """Parameters of the model that transformers makes of a config, less those of a vision tower, and the bytes of keys
    and values that it caches for one token in bf16."""
    given = {key: value for key, value in config.items() if key != "model_type"}
    kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(CONFIG_MAPPING[config["model_type"]](**given), dtype=torch.bfloat16)
        model.tie_weights()
        cache = model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=True).past_key_values
    weights = [parameter for name, parameter in model.named_parameters() if "visual" not in name]
    stored = [getattr(layer, part, None) for layer in cache.layers for part in ("keys", "values")]
    return (
        sum(weight.numel() for weight in weights),
        sum(part.numel() * part.element_size() for part in stored if part is not None),
    )
