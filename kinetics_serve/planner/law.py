"""The Kinetics law of a task: how much longer, more and wider to sample when the cost doubles."""

from collections.abc import Iterable, Sequence
from math import log2
from statistics import correlation, linear_regression

from kinetics_serve.planner.calibration import FixedPoint, Law, pareto

MIN_POINTS = 3
"""Fewer points on a frontier say nothing of a slope."""

MIN_DOUBLINGS = 1.0
"""Nor does a frontier on which the cost does not even double say what a doubling brings."""

PAPER_TOKENS_GROWTH = 1.74
PAPER_KV_GROWTH = 1.18
"""Per doubling of cost, of Qwen3 with block top-k attention on AIME (Kinetics, arXiv 2506.05333)."""


def laws(points: Iterable[FixedPoint]) -> tuple[Law, ...]:
    """The law of every model, dense and sparse, whose frontier of coverage against eFLOPs has enough points."""
    groups: dict[tuple[str, bool], list[FixedPoint]] = {}
    for point in points:
        groups.setdefault((point.model, point.kv.budget is not None), []).append(point)
    found = (_law(model, sparse, group) for (model, sparse), group in sorted(groups.items()))
    return tuple(law for law in found if law is not None)


def _law(model: str, sparse: bool, points: Sequence[FixedPoint]) -> Law | None:
    frontier = pareto((point.eflops.mean, point.coverage.mean, point) for point in points)
    costs = [log2(cost) for cost, _, _ in frontier]
    if len(frontier) < MIN_POINTS or costs[-1] - costs[0] < MIN_DOUBLINGS:
        return None
    tokens, tokens_fit = _slope(costs, [log2(point.tokens) for _, _, point in frontier])
    if not sparse:
        return Law(model, sparse, 2**tokens, None, tokens_fit, len(frontier))
    budgets = [log2(point.kv.budget or 1) for _, _, point in frontier]
    kv, kv_fit = _slope(costs, budgets)
    return Law(model, sparse, 2**tokens, 2**kv, min(tokens_fit, kv_fit), len(frontier))


def _slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The least-squares slope and its R²; 1 where y does not vary, which a flat line fits."""
    flat = min(y) == max(y)
    return linear_regression(x, y).slope, 1.0 if flat else correlation(x, y) ** 2
