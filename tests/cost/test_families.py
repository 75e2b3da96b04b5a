from typing import Any

import pytest

from kinetics_serve.cost import Architecture, AttentionLayers, UnsupportedArchitecture

from . import configs


def layers(config: dict[str, Any]) -> tuple[AttentionLayers, ...]:
    return Architecture.from_config(config, "model").layers


def test_gemma3_slides_in_five_of_six_layers() -> None:
    assert layers(configs.GEMMA3_1B) == (
        AttentionLayers(22, 4, 1, 256, window=512),
        AttentionLayers(4, 4, 1, 256),
    )


def test_a_nested_gemma3_config_is_read_with_its_class_defaults() -> None:
    assert layers(configs.GEMMA3_4B) == (
        AttentionLayers(29, 8, 4, 256, window=1024),
        AttentionLayers(5, 8, 4, 256),
    )
    assert Architecture.from_config(configs.GEMMA3_4B, "gemma").max_context == 131072


def test_layer_types_decide_over_the_pattern() -> None:
    types = ["full_attention"] * 2 + ["sliding_attention"] * 24
    assert layers({**configs.GEMMA3_1B, "layer_types": types}) == (
        AttentionLayers(2, 4, 1, 256),
        AttentionLayers(24, 4, 1, 256, window=512),
    )


def test_gemma2_slides_in_every_other_layer() -> None:
    config = {**configs.GEMMA3_1B, "model_type": "gemma2", "sliding_window": 4096}
    del config["sliding_window_pattern"]
    assert [(group.count, group.window) for group in layers(config)] == [(13, 4096), (13, None)]


def test_qwen_slides_only_when_told_and_only_from_max_window_layers_on() -> None:
    assert layers(configs.QWEN2_5_0_5B) == (AttentionLayers(24, 14, 2, 64),)
    assert layers({**configs.QWEN2_5_0_5B, "use_sliding_window": True}) == (
        AttentionLayers(21, 14, 2, 64),
        AttentionLayers(3, 14, 2, 64, window=32768),
    )


def test_mistral_slides_in_every_layer_and_mixtral_in_none() -> None:
    assert layers(configs.MISTRAL_7B) == (AttentionLayers(32, 32, 8, 128, window=4096),)
    assert layers(configs.MIXTRAL_8X7B) == (AttentionLayers(32, 32, 8, 128),)


def test_without_kv_heads_every_query_head_has_its_own() -> None:
    config = {**configs.LLAMA_3_8B, "num_key_value_heads": None}
    assert layers(config) == (AttentionLayers(32, 32, 32, 128),)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (configs.DEEPSEEK_V3, "kv_lora_rank"),
        ({"model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768}, "hidden_size"),
        ({k: v for k, v in configs.LLAMA_3_8B.items() if k != "rms_norm_eps"}, "rms_norm_eps"),
        ({**configs.QWEN3["Qwen3-8B"], "linear_num_key_heads": 16}, "linear attention"),
        ({**configs.LLAMA_3_8B, "layer_types": ["linear_attention"] * 32}, "linear_attention"),
        ({**configs.LLAMA_3_8B, "layer_types": ["sliding_attention"] * 32}, "sliding_window None"),
        ({**configs.LLAMA_3_8B, "layer_types": ["full_attention"] * 31}, "31 layer_types"),
        ({}, "hidden_size"),
    ],
)
def test_what_cannot_be_priced_is_refused_by_what_was_found(config: dict[str, Any], found: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=found) as error:
        layers(config)
    assert "supported are Llama" in str(error.value)
    assert isinstance(error.value, ValueError)
