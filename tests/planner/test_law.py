import pytest

from kinetics_serve.cost import DENSE, KVPolicy
from kinetics_serve.planner.calibration import FixedPoint, pareto
from kinetics_serve.planner.law import laws
from kinetics_serve.traces.intervals import Interval


def point(cost: float, coverage: float, tokens: float, budget: int | None) -> FixedPoint:
    kv = DENSE if budget is None else KVPolicy(budget)
    flat = Interval(coverage, coverage, coverage)
    return FixedPoint("m", kv, 1, 100, Interval(cost, cost, cost), flat, flat, tokens)


def test_growth_that_was_put_in_comes_out() -> None:
    sparse = [point(1e9 * 2**i, 0.1 * i, 100 * 1.74**i, round(1e6 * 1.18**i)) for i in range(1, 7)]
    dense = [point(1e9 * 2**i, 0.1 * i, 100 * 1.5**i, None) for i in range(1, 7)]
    dominated = [point(1e9 * 2**i + 1, 0.1 * i - 0.05, 1e6, 64) for i in range(1, 7)]
    for_dense, for_sparse = laws([*sparse, *dense, *dominated])
    assert (for_dense.sparse, for_sparse.sparse) == (False, True)
    assert for_dense.tokens_growth == pytest.approx(1.5)
    assert for_dense.kv_growth is None
    assert for_sparse.tokens_growth == pytest.approx(1.74)
    assert for_sparse.kv_growth == pytest.approx(1.18, abs=1e-4)
    assert for_sparse.r_squared == pytest.approx(1)


def test_two_points_make_no_law() -> None:
    assert laws([point(1e9, 0.1, 10, None), point(2e9, 0.2, 20, None)]) == ()


def test_a_cost_that_does_not_double_says_nothing_of_a_doubling() -> None:
    steep = [point(1e9 * (1 + 0.1 * i), 0.1 * i, 10**i, None) for i in range(1, 7)]
    assert laws(steep) == ()
    assert len(laws([*steep, point(2.3e9, 0.9, 10**8, None)])) == 1


def test_a_frontier_has_no_point_that_a_cheaper_one_matches() -> None:
    points = [(3.0, 0.5, "c"), (1.0, 0.2, "a"), (2.0, 0.5, "b"), (1.0, 0.1, "d"), (4.0, 0.4, "e")]
    assert [what for _, _, what in pareto(points)] == ["a", "b"]
