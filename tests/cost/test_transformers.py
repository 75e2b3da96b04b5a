"""Every model of transformers that generates text, and every one that vLLM does: priced right, or refused."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torch")

from kinetics_serve.cost import UnsupportedArchitecture, read_config
from kinetics_serve.cost.families.table import FAMILIES

from .class_defaults import FILE, class_defaults
from .transformers_models import parameters, small, text_types, variations


@pytest.mark.parametrize("model_type", text_types())
def test_a_model_has_the_parameters_that_transformers_gives_it_or_is_refused(model_type: str) -> None:
    priced = 0
    for config in variations(small(model_type)):
        try:
            ours = read_config(config, model_type).parameters
        except UnsupportedArchitecture:
            continue
        theirs = parameters(config)
        assert theirs in (ours, None), config
        priced += theirs is not None
    assert priced or model_type not in FAMILIES, "a known type was never compared"


def test_defaults_are_those_of_transformers_classes() -> None:
    assert json.loads(FILE.read_text(encoding="utf-8")) == class_defaults()
