"""Where a fleet is full, by hand."""

import pytest

from benchmarks.fleet.saturation import BUSY, Costs, Demand, line, saturation

COSTS = Costs(
    request_s=0.004,
    token_s=20e-6,
    pick_s={10: 0.0001, 1000: 0.001},
    check_s=0.0005,
    checks_per_s=200,
    ledger_cpu_s=0.001,
    settlements_per_s={"sqlite": 100.0, "postgresql": 400.0},
)


def test_a_front_end_is_full_when_its_requests_and_its_checks_take_its_core() -> None:
    found = saturation(COSTS, Demand(engines=100, requests_per_s=140.0, tokens=1000))
    assert found.request_cpu_s == pytest.approx(0.004 + 0.02 + 0.001 + 0.001)
    assert found.idle_share == pytest.approx(100 * 0.0005)
    assert found.front_end_requests_per_s == pytest.approx((BUSY - 0.05) / 0.026)
    assert found.front_end_tokens_per_s == pytest.approx(1000 * 25)
    assert found.front_ends == 6


def test_a_ledger_is_full_at_its_share_of_what_was_measured() -> None:
    found = saturation(COSTS, Demand(engines=10, requests_per_s=150.0, tokens=1000))
    assert found.ledgers == {"sqlite": 3, "postgresql": 1}


def test_checks_stop_growing_with_the_engines_and_choosing_costs_what_was_measured() -> None:
    most = saturation(COSTS, Demand(10_000, 1.0, 0))
    assert most.idle_share == pytest.approx(0.1)
    assert most.request_cpu_s == pytest.approx(0.006)
    assert most.engines_to_fill_a_core == pytest.approx(1400)


def test_a_line_is_constant_and_slope() -> None:
    assert line({256.0: 0.007, 1280.0: 0.0275}) == pytest.approx((0.001875, 0.0205 / 1024))
    with pytest.raises(ValueError, match="two points"):
        line({1.0: 1.0})
