from typing import Any

import pytest

from kinetics_serve.cost import read_config

from . import configs


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (configs.QWEN3["Qwen3-0.6B"], 596_049_920),
        (configs.QWEN3["Qwen3-1.7B"], 1_720_574_976),
        (configs.QWEN3["Qwen3-4B"], 4_022_468_096),
        (configs.QWEN3["Qwen3-8B"], 8_190_735_360),
        (configs.QWEN3["Qwen3-14B"], 14_768_307_200),
        (configs.QWEN3["Qwen3-32B"], 32_762_123_264),
        (configs.QWEN3_30B_A3B, 30_532_122_624),
        (configs.QWEN1_5_MOE, 14_315_784_192),
        (configs.QWEN2_5_0_5B, 494_032_768),
        (configs.MIXTRAL_8X7B, 46_702_792_704),
        (configs.MISTRAL_7B, 7_241_732_096),
        (configs.SMOLLM2_135M, 134_515_008),
        (configs.LLAMA_3_8B, 8_030_261_248),
        (configs.GEMMA3_1B, 999_885_952),
        (configs.GEMMA3_4B, 3_880_263_168),
    ],
)
def test_counts_from_shapes_are_the_published_sizes(config: dict[str, Any], parameters: int) -> None:
    assert read_config(config, "model").parameters == parameters


@pytest.mark.parametrize(("name", "copied"), [("Qwen3-0.6B", 751_632_384), ("Qwen3-1.7B", 2_031_739_904)])
def test_published_sizes_of_tied_qwen3_count_the_embedding_twice(name: str, copied: int) -> None:
    config = configs.QWEN3[name]
    embedding = config["vocab_size"] * config["hidden_size"]
    assert read_config(config, name).parameters + embedding == copied


@pytest.mark.parametrize(
    ("config", "billions"),
    [(configs.MIXTRAL_8X7B, 12.9), (configs.QWEN3_30B_A3B, 3.3), (configs.QWEN1_5_MOE, 2.7)],
)
def test_active_parameters_of_a_mixture_are_the_published_ones(config: dict[str, Any], billions: float) -> None:
    assert read_config(config, "model").active_parameters / 1e9 == pytest.approx(billions, abs=0.06)


def test_a_dense_model_is_all_active() -> None:
    architecture = read_config(configs.LLAMA_3_8B, "llama")
    assert architecture.active_parameters == architecture.parameters


def test_dense_layers_of_a_mixture_have_a_plain_mlp() -> None:
    config = configs.QWEN3_30B_A3B
    mixed = {**config, "mlp_only_layers": [0, 47]}
    hidden, experts = 2048, 128 * (3 * 2048 * 768 + 2048)
    difference = 2 * (experts - 3 * hidden * 6144)
    assert read_config(config, "all").parameters - read_config(mixed, "mixed").parameters == difference


def test_biases_are_counted() -> None:
    config = configs.LLAMA_3_8B
    biased = {**config, "attention_bias": True, "mlp_bias": True}
    per_layer = (4096 + 2 * 1024 + 4096) + (2 * 14336 + 4096)
    assert read_config(biased, "biased").parameters - read_config(config, "plain").parameters == 32 * per_layer
