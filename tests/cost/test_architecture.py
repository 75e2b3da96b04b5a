import json
from dataclasses import asdict

import pytest
from hypothesis import given

from kinetics_serve.cost import Architecture, AttentionLayers, read_config
from kinetics_serve.cost.layers import layers_of

from . import configs
from .shapes import architectures


def test_qwen3_has_one_group_of_full_attention_layers() -> None:
    architecture = read_config(configs.QWEN3["Qwen3-8B"], "Qwen/Qwen3-8B")
    assert architecture == Architecture(
        name="Qwen/Qwen3-8B",
        parameters=8_190_735_360,
        active_parameters=8_190_735_360,
        layers=(AttentionLayers(count=36, query_heads=32, kv_heads=8, head_size=128),),
        kv_bytes=2,
        max_context=40960,
        looked_up_embedding=622_329_856,
    )


def test_known_parameters_replace_counted_ones_and_idle_experts_still_count() -> None:
    counted = read_config(configs.MIXTRAL_8X7B, "mixtral")
    given = read_config(configs.MIXTRAL_8X7B, "mixtral", parameters=46_700_000_000, kv_bytes=1)
    assert given.parameters == 46_700_000_000
    assert given.parameters - given.active_parameters == counted.parameters - counted.active_parameters
    assert given.kv_bytes == 1


@pytest.mark.parametrize("wrong", [{"count": 0}, {"kv_heads": 0}, {"head_size": -1}, {"window": 0}])
def test_sizes_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        layers_of({"count": 1, "query_heads": 1, "kv_heads": 1, "head_size": 1, **wrong})


@pytest.mark.parametrize(("parameters", "active", "kv_bytes"), [(10, 11, 2), (10, 0, 2), (0, 0, 2), (10, 10, 0)])
def test_impossible_architectures_are_refused(parameters: int, active: int, kv_bytes: int) -> None:
    layers = (AttentionLayers(1, 1, 1, 1),)
    with pytest.raises(ValueError, match="x: "):
        Architecture("x", parameters, active, layers, kv_bytes)


def test_an_architecture_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="group of layers"):
        Architecture("x", 10, 10, ())


def test_an_architecture_that_an_earlier_version_wrote_is_read_as_it_was_priced() -> None:
    old = {"count": 36, "query_heads": 32, "kv_heads": 8, "head_size": 128, "window": None}
    written = {
        "name": "x",
        "parameters": 9,
        "active_parameters": 9,
        "layers": [old],
        "kv_bytes": 2,
        "max_context": None,
    }
    read = Architecture.from_json(written)
    assert read == Architecture("x", 9, 9, (AttentionLayers(36, 32, 8, 128),))
    assert read.multiplied_parameters == 9


@given(architectures)
def test_what_is_written_is_read_back(architecture: Architecture) -> None:
    assert Architecture.from_json(json.loads(json.dumps(asdict(architecture)))) == architecture


@pytest.mark.parametrize("group", [{"kind": "unknown"}, {"kind": []}, {"count": 1}, {"count": 1, "other": 2}])
def test_a_group_of_layers_that_is_not_known_is_refused(group: dict[str, object]) -> None:
    content = {"name": "x", "parameters": 9, "active_parameters": 9, "layers": [group]}
    with pytest.raises((TypeError, ValueError)):
        Architecture.from_json(content)


@pytest.mark.parametrize("embedding", [-1, 10])
def test_a_looked_up_embedding_is_a_part_of_the_active_parameters(embedding: int) -> None:
    with pytest.raises(ValueError, match="looked-up"):
        Architecture("x", 10, 10, (AttentionLayers(1, 1, 1, 1),), looked_up_embedding=embedding)


def test_a_layer_has_a_window_or_a_chunk_not_both() -> None:
    with pytest.raises(ValueError, match="not two"):
        AttentionLayers(1, 1, 1, 1, window=3, chunk=4)
