"""Popular models in the form in which their config.json is published: keys that engines don't read, lists of one number
for each layer, a language model's keys beside its vision tower's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kinetics_serve.cost import AttentionLayers, UnsupportedArchitecture, read_config

Config = dict[str, Any]

PHI_4_MINI: Config = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 200064,
    "sliding_window": 262144,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "pad_token_id": 199999,
}
PHI_3_5_MOE: Config = {
    "model_type": "phimoe",
    "hidden_size": 4096,
    "intermediate_size": 6400,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "num_experts_per_tok": 2,
    "vocab_size": 32064,
    "sliding_window": 131072,
    "max_position_embeddings": 131072,
    "attention_bias": True,
    "lm_head_bias": True,
    "input_jitter_noise": 0.01,
    "tie_word_embeddings": False,
}
GEMMA_2_9B: Config = {
    "model_type": "gemma2",
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_hidden_layers": 42,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 256,
    "vocab_size": 256000,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
    "max_position_embeddings": 8192,
    "query_pre_attn_scalar": 256,
}
LFM2_1_2B: Config = {
    "model_type": "lfm2",
    "hidden_size": 2048,
    "intermediate_size": 12288,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 65536,
    "layer_types": ["full_attention" if index in (2, 5, 8, 10, 12, 14) else "conv" for index in range(16)],
    "block_auto_adjust_ff_dim": True,
    "block_dim": 2048,
    "block_ff_dim": 12288,
    "block_ffn_dim_multiplier": 1.0,
    "block_mlp_init_scale": 1.0,
    "block_multiple_of": 256,
    "block_norm_eps": 1e-5,
    "block_out_init_scale": 1.0,
    "block_use_swiglu": True,
    "block_use_xavier_init": True,
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_dim": 2048,
    "conv_dim_out": 2048,
    "conv_use_xavier_init": True,
    "max_position_embeddings": 128000,
    "use_pos_enc": True,
}
COMMAND_R7B: Config = {
    "model_type": "cohere2",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 256000,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "layer_switch": 4,
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": True,
    "max_position_embeddings": 132096,
}
COMMAND_A: Config = {
    **COMMAND_R7B,
    "hidden_size": 12288,
    "intermediate_size": 36864,
    "num_hidden_layers": 64,
    "num_attention_heads": 96,
    "max_position_embeddings": 131072,
}
COMMAND_R_PLUS: Config = {
    "model_type": "cohere",
    "hidden_size": 12288,
    "intermediate_size": 33792,
    "num_hidden_layers": 64,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "vocab_size": 256000,
    "use_qk_norm": True,
    "max_position_embeddings": 8192,
    "model_max_length": 131072,
}
STABLELM_2_12B: Config = {
    "model_type": "stablelm",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 100352,
    "qk_layernorm": True,
    "use_parallel_residual": True,
    "use_qkv_bias": False,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
STARCODER2_15B: Config = {
    "model_type": "starcoder2",
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 40,
    "num_attention_heads": 48,
    "num_key_value_heads": 4,
    "vocab_size": 49152,
    "sliding_window": 4096,
    "max_position_embeddings": 16384,
    "mlp_type": "default",
    "norm_type": "layer_norm",
    "use_bias": True,
    "tie_word_embeddings": False,
}
ERNIE_300B: Config = {
    "model_type": "ernie4_5_moe",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 54,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 103424,
    "moe_num_experts": 64,
    "moe_k": 8,
    "moe_intermediate_size": 3584,
    "moe_num_shared_experts": 0,
    "moe_layer_start_index": 3,
    "moe_layer_end_index": 53,
    "moe_layer_interval": 1,
    "moe_capacity": [64, 64, 64],
    "moe_gate": "topk",
    "moe_use_aux_free": True,
    "compression_ratio": 1.0,
    "max_position_embeddings": 131072,
    "num_nextn_predict_layers": 1,
    "tie_word_embeddings": False,
}
FALCON_H1_0_5B: Config = {
    "model_type": "falcon_h1",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_hidden_layers": 36,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 32784,
    "mamba_d_ssm": 1536,
    "mamba_d_state": 128,
    "mamba_d_conv": 4,
    "mamba_d_head": 64,
    "mamba_n_heads": 24,
    "mamba_n_groups": 1,
    "mamba_rms_norm": False,
    "mamba_use_mlp": True,
    "mlp_expansion_factor": 8,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}
HY_MT2_7B: Config = {
    "model_type": "hunyuan_v1_dense",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "attention_head_dim": 128,
    "head_dim": 128,
    "vocab_size": 128167,
    "org_vocab_size": 128167,
    "add_classification_head": False,
    "class_num": 0,
    "dense_list": [4096, 0],
    "use_cla": False,
    "cla_share_factor": 2,
    "use_qk_norm": True,
    "norm_type": "rms",
    "max_position_embeddings": 262144,
    "tie_word_embeddings": True,
}
HUNYUAN_A13B: Config = {
    **HY_MT2_7B,
    "model_type": "hunyuan_v1_moe",
    "intermediate_size": 3072,
    "moe_intermediate_size": [3072] * 32,
    "num_experts": 64,
    "moe_topk": [8] * 32,
    "num_shared_expert": [1] * 32,
    "use_mixed_mlp_moe": True,
}
QWEN2_5_VL_7B: Config = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "max_position_embeddings": 128000,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "image_token_id": 151655,
    "vision_start_token_id": 151652,
    "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
    "tie_word_embeddings": False,
}
QWEN2_VL_2B: Config = {
    **QWEN2_5_VL_7B,
    "model_type": "qwen2_vl",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 1536},
    "tie_word_embeddings": True,
}


def idle(mixtures: int, experts: int, hidden: int, width: int) -> int:
    """Weights of the experts that a token is not routed to."""
    return mixtures * experts * 3 * hidden * width


PUBLISHED = {
    "Phi-4-mini": (PHI_4_MINI, 3_836_021_760, 0, (32, 8, 128)),
    "Phi-3.5-MoE": (PHI_3_5_MOE, 41_873_153_344, idle(32, 14, 4096, 6400), (32, 8, 128)),
    "Gemma-2-9B": (GEMMA_2_9B, 9_241_705_984, 0, (42, 8, 256)),
    "LFM2-1.2B": (LFM2_1_2B, 1_170_340_608, 0, (6, 8, 64)),
    "Command-R7B": (COMMAND_R7B, 8_028_033_024, 0, (32, 8, 128)),
    "Command-A": (COMMAND_A, 111_057_580_032, 0, (64, 8, 128)),
    "Command-R+": (COMMAND_R_PLUS, 103_810_674_688, 0, (64, 8, 128)),
    "StableLM-2-12B": (STABLELM_2_12B, 12_143_185_920, 0, (40, 8, 160)),
    "StarCoder2-15B": (STARCODER2_15B, 15_957_889_024, 0, (40, 4, 128)),
    "ERNIE-4.5-300B-A47B": (ERNIE_300B, 299_484_163_264, idle(51, 56, 8192, 3584), (54, 8, 128)),
    "Falcon-H1-0.5B": (FALCON_H1_0_5B, 521_411_104, 0, (36, 2, 64)),
    "Hy-MT2-7B": (HY_MT2_7B, 7_504_568_320, 0, (32, 8, 128)),
    "Hunyuan-A13B": (HUNYUAN_A13B, 80_393_183_232, idle(32, 56, 4096, 3072), (32, 8, 128)),
    "Qwen2.5-VL-7B": (QWEN2_5_VL_7B, 7_615_616_512, 0, (28, 4, 128)),
    "Qwen2-VL-2B": (QWEN2_VL_2B, 1_543_714_304, 0, (28, 2, 128)),
}
"""Parameters, of which a token leaves some idle; layers that keep keys and values, their KV heads and head size."""


@pytest.mark.parametrize("model", PUBLISHED)
def test_a_published_model_has_its_parameters_and_bytes_of_kv(model: str) -> None:
    config, parameters, idle_parameters, (layers, kv_heads, head_size) = PUBLISHED[model]
    architecture = read_config(config, model)
    assert architecture.parameters == parameters
    assert architecture.active_parameters == parameters - idle_parameters
    assert architecture.kv_token_bytes == layers * 2 * kv_heads * head_size * 2


@pytest.mark.parametrize("model", PUBLISHED)
def test_transformers_makes_as_large_a_model_with_as_large_a_cache_of_it(model: str) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    from .transformers_models import language_model

    config, parameters, _, (layers, kv_heads, head_size) = PUBLISHED[model]
    assert language_model(config) == (parameters, layers * 2 * kv_heads * head_size * 2)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({**PHI_4_MINI, "full_attn_mod": 2}, "full_attn_mod 2, expected 1"),
        ({**GEMMA_2_9B, "sliding_window_size": 2048}, "sliding_window_size 2048, expected 4096"),
        ({**LFM2_1_2B, "num_heads": 16}, "num_heads 16, expected 32"),
        ({**LFM2_1_2B, "conv_dim": 1024}, "conv_dim 1024, expected 2048"),
        ({**COMMAND_R7B, "layer_switch": 3}, "layer_switch 3, expected 4"),
        ({**COMMAND_R7B, "use_embedding_sharing": False}, "use_embedding_sharing False, expected True"),
        ({**COMMAND_R7B, "use_qk_norm": True}, "unknown use_qk_norm"),
        ({**STARCODER2_15B, "mlp_type": "gated"}, "mlp_type 'gated', expected 'default'"),
        ({**ERNIE_300B, "compression_ratio": 0.5}, "compression_ratio 0.5, expected 1"),
        ({**FALCON_H1_0_5B, "time_step_rank": 64}, "unknown time_step_rank"),
        ({**HY_MT2_7B, "use_cla": True}, "use_cla True, expected False"),
        ({**HY_MT2_7B, "add_classification_head": True}, "unknown add_classification_head"),
        ({**HUNYUAN_A13B, "num_shared_expert": [1] * 31 + [2]}, "expected 1"),
        ({**HUNYUAN_A13B, "num_shared_expert": True}, "num_shared_expert True, expected 1"),
        ({**HUNYUAN_A13B, "moe_intermediate_size": [1536] * 32}, "expected 3072"),
        ({**HUNYUAN_A13B, "moe_topk": [8] * 31}, "31 moe_topk for 32 layers"),
        ({**HUNYUAN_A13B, "moe_topk": [8] * 31 + [0]}, "0 in moe_topk"),
        ({**HUNYUAN_A13B, "moe_topk": [8] * 31 + [65]}, "65 of 64 experts"),
        ({**QWEN2_5_VL_7B, "text_config": 3}, "text_config 3, expected an object"),
        ({**QWEN2_5_VL_7B, "model_type": "qwen3_vl"}, "text_config None, expected an object"),
        ({**QWEN2_5_VL_7B, "num_experts": 8}, "unknown num_experts"),
    ],
)
def test_another_value_than_engines_build_is_refused(config: Config, found: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=re.escape(found)):
        read_config(config, "model")


def test_keys_at_the_top_are_read_as_those_inside_a_text_config() -> None:
    text = {key: value for key, value in QWEN2_5_VL_7B.items() if key not in ("model_type", "vision_config")}
    nested = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": QWEN2_5_VL_7B["vision_config"]}
    assert read_config(nested, "model") == read_config(QWEN2_5_VL_7B, "model")


def test_a_text_config_decides_over_keys_at_the_top() -> None:
    text = {key: value for key, value in QWEN2_VL_2B.items() if key != "model_type"}
    assert read_config({**QWEN2_5_VL_7B, "text_config": text}, "model").layers == (AttentionLayers(28, 12, 2, 128),)


def test_a_token_is_routed_to_as_many_experts_as_each_layer_says() -> None:
    fewer = {**HUNYUAN_A13B, "moe_topk": [8] * 16 + [4] * 16}
    difference = read_config(HUNYUAN_A13B, "all").active_parameters - read_config(fewer, "fewer").active_parameters
    assert difference == idle(16, 4, 4096, 3072)


def test_a_window_holds_every_context_only_up_to_the_length_that_the_model_is_served_for() -> None:
    longer = {**COMMAND_R7B, "max_position_embeddings": 4096, "model_max_length": 131072}
    architecture = read_config(longer, "model")
    assert architecture.max_context == 131072
    assert AttentionLayers(24, 32, 8, 128, window=4096) in architecture.layers
    assert read_config(COMMAND_R_PLUS, "model").max_context == 131072
