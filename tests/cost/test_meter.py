import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost import Architecture, KVPolicy, Meter, Price

from .shapes import architectures, policies


@given(architectures, policies, st.integers(0, 200), st.data())
def test_the_meter_is_the_closed_form_after_every_chunk(
    architecture: Architecture, kv: KVPolicy, prompt: int, data: st.DataObject
) -> None:
    price, cached = Price(architecture, 2.0), data.draw(st.integers(0, prompt))
    meter, tokens = Meter(price, prompt, kv, cached), 0
    assert meter.cost == price.prefill(prompt, cached)
    for chunk in data.draw(st.lists(st.integers(0, 1000), max_size=20)):
        meter.advance(chunk)
        tokens += chunk
        assert meter.tokens == tokens
        assert meter.cost == price.sample(prompt, tokens, kv, cached)


@given(architectures)
def test_a_meter_does_not_run_backwards(architecture: Architecture) -> None:
    meter = Meter(Price(architecture, 2.0), 10)
    meter.advance(3)
    with pytest.raises(ValueError, match="start"):
        meter.advance(-1)
    assert meter.tokens == 3
    assert meter.cost == meter.price.sample(10, 3)
