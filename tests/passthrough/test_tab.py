"""What of a stream is known to have been generated when its client does not keep up."""

import pytest

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Price
from kinetics_serve.passthrough import tab as tab_module
from kinetics_serve.passthrough.tab import Tab

PRICE = Price(Architecture("model", 100, 100, (AttentionLayers(1, 1, 1, 1),)), 0.0)
USAGE = {"prompt_tokens": 10, "completion_tokens": 3}
EVENT = {"choices": [{"index": 0}], "usage": USAGE}
TOTAL = {"choices": [], "usage": USAGE}
OF_THREE = Tab(PRICE, DENSE, 1, 10, 1, 3).reserved


@pytest.fixture
def tab(monkeypatch: pytest.MonkeyPatch) -> Tab:
    """It has seen 3 tokens of 100, and any client is too slow for it."""
    monkeypatch.setattr(tab_module, "HELD_UP_S", -1)
    tab = Tab(PRICE, DENSE, prompts=1, prompt_tokens=10, n=1, max_tokens=100)
    tab.accepted()
    tab.read(EVENT)
    assert tab.spent() == OF_THREE
    return tab


def test_while_a_client_does_not_read_anything_may_have_been_generated(tab: Tab) -> None:
    tab.offered()
    assert tab.spent() == tab.reserved > OF_THREE
    tab.taken()
    assert tab.spent() == tab.reserved


def test_what_was_generated_is_known_again_once_all_has_been_read(tab: Tab) -> None:
    tab.offered()
    tab.taken()
    tab.caught_up()
    assert tab.spent() == OF_THREE


def test_the_total_holds_whatever_was_before(tab: Tab) -> None:
    tab.offered()
    tab.taken()
    tab.read(TOTAL)
    assert tab.spent() == OF_THREE


def test_a_client_that_keeps_up_pays_for_what_it_has_seen(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tab_module, "HELD_UP_S", 60)
    tab.offered()
    assert tab.spent() == OF_THREE
    tab.taken()
    assert tab.spent() == OF_THREE
