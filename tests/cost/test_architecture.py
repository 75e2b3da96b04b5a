import pytest

from kinetics_serve.cost import Architecture, AttentionLayers

from . import configs


def test_qwen3_has_one_group_of_full_attention_layers() -> None:
    architecture = Architecture.from_config(configs.QWEN3["Qwen3-8B"], "Qwen/Qwen3-8B")
    assert architecture == Architecture(
        name="Qwen/Qwen3-8B",
        parameters=8_190_735_360,
        active_parameters=8_190_735_360,
        layers=(AttentionLayers(count=36, query_heads=32, kv_heads=8, head_size=128),),
        kv_bytes=2,
        max_context=40960,
    )


def test_known_parameters_replace_counted_ones_and_idle_experts_still_count() -> None:
    counted = Architecture.from_config(configs.MIXTRAL_8X7B, "mixtral")
    given = Architecture.from_config(configs.MIXTRAL_8X7B, "mixtral", parameters=46_700_000_000, kv_bytes=1)
    assert given.parameters == 46_700_000_000
    assert given.parameters - given.active_parameters == counted.parameters - counted.active_parameters
    assert given.kv_bytes == 1


@pytest.mark.parametrize("wrong", [{"count": 0}, {"kv_heads": 0}, {"head_size": -1}, {"window": 0}])
def test_sizes_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AttentionLayers(**{"count": 1, "query_heads": 1, "kv_heads": 1, "head_size": 1, **wrong})


@pytest.mark.parametrize(("parameters", "active", "kv_bytes"), [(10, 11, 2), (10, 0, 2), (0, 0, 2), (10, 10, 0)])
def test_impossible_architectures_are_refused(parameters: int, active: int, kv_bytes: int) -> None:
    layers = (AttentionLayers(1, 1, 1, 1),)
    with pytest.raises(ValueError, match="x: "):
        Architecture("x", parameters, active, layers, kv_bytes)


def test_an_architecture_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="attention"):
        Architecture("x", 10, 10, ())
