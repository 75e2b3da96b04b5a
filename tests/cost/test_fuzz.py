"""Whatever a config.json holds, it is priced or refused with our error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinetics_serve.cost import Price, UnsupportedArchitecture, read_config
from kinetics_serve.cost.families.table import FAMILIES, WRAPPERS

from .test_checkpoints import FOLDER, config
from .test_published import PUBLISHED

CONFIGS = [config(path.stem) for path in sorted(FOLDER.glob("*.json"))] + [known for known, *_ in PUBLISHED.values()]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 64)
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["full_attention", "sliding_attention", "mamba", "auto", "M*E-", "float32", *FAMILIES, *WRAPPERS]
    ),
    lambda inner: st.lists(inner, max_size=70) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=80,
)


def priced_or_refused(content: Any) -> None:
    try:
        architecture = read_config(content, "fuzzed")
    except UnsupportedArchitecture:
        return
    price = Price(architecture, 300.0)
    cost = price.sample(1000, 100)
    assert cost.compute_flops > 0
    assert cost.memory_bytes >= 0
    assert price.eflops(cost) < float("inf")


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CONFIGS), st.data())
def test_a_config_with_any_value_under_any_of_its_keys(content: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(content))
    for _ in range(data.draw(st.integers(1, 3))):
        inside = [changed] + [part for part in changed.values() if isinstance(part, dict) and part]
        part = data.draw(st.sampled_from(inside))
        part[data.draw(st.sampled_from(sorted(part)) | st.text(max_size=6))] = data.draw(anything)
    priced_or_refused(changed)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*FAMILIES, *WRAPPERS]), st.dictionaries(st.text(max_size=8), anything, max_size=4))
def test_a_known_type_with_any_keys(model_type: str, content: dict[str, Any]) -> None:
    priced_or_refused({"text_config": {}, **content, "model_type": model_type})
    priced_or_refused({**content, "model_type": model_type})


@given(st.dictionaries(st.text(max_size=8), anything, max_size=5))
def test_any_object(content: dict[str, Any]) -> None:
    priced_or_refused(content)


@pytest.mark.parametrize("content", CONFIGS, ids=lambda content: str(content.get("model_type")))
@pytest.mark.parametrize(
    "key", ["num_shadow_experts", "cross_layer_attention", "kv_compression", "extra_layers", "expert_memory_size"]
)
def test_an_unknown_key_about_what_costs_is_refused_by_its_name(content: dict[str, Any], key: str) -> None:
    nested = isinstance(content.get("text_config"), dict)
    changed = {**content, "text_config": {**content["text_config"], key: 7}} if nested else {**content, key: 7}
    try:
        read_config(content, "model")
    except UnsupportedArchitecture:
        return
    with pytest.raises(UnsupportedArchitecture, match=key):
        read_config(changed, "model")
