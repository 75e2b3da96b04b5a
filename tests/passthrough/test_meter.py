"""What of a stream is known to have been generated when its client does not keep up."""

import pytest

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Price
from kinetics_serve.passthrough import meter as api_meter
from kinetics_serve.passthrough.meter import Meter

PRICE = Price(Architecture("model", 100, 100, (AttentionLayers(1, 1, 1, 1),)), 0.0)
EVENT = b'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":10,"completion_tokens":3}}\n\n'
TOTAL = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":3}}\n\n'
OF_THREE = Meter(PRICE, DENSE, 1, 10, 1, 3).reserved


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    """It has seen 3 tokens of 100, and any client is too slow for it."""
    monkeypatch.setattr(api_meter, "HELD_UP_S", -1)
    meter = Meter(PRICE, DENSE, prompts=1, prompt_tokens=10, n=1, max_tokens=100)
    meter.accepted()
    meter.read(EVENT)
    assert meter.spent() == OF_THREE
    return meter


def test_while_a_client_does_not_read_anything_may_have_been_generated(meter: Meter) -> None:
    meter.offered()
    assert meter.spent() == meter.reserved > OF_THREE
    meter.taken()
    assert meter.spent() == meter.reserved


def test_what_was_generated_is_known_again_once_all_has_been_read(meter: Meter) -> None:
    meter.offered()
    meter.taken()
    meter.caught_up()
    assert meter.spent() == OF_THREE


def test_the_total_holds_whatever_was_before(meter: Meter) -> None:
    meter.offered()
    meter.taken()
    meter.read(TOTAL)
    assert meter.spent() == OF_THREE


def test_a_client_that_keeps_up_pays_for_what_it_has_seen(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_meter, "HELD_UP_S", 60)
    meter.offered()
    assert meter.spent() == OF_THREE
    meter.taken()
    assert meter.spent() == OF_THREE
