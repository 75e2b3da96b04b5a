"""How sure votes make us that their leader is the answer the model gives most often, all answers considered."""

from collections.abc import Sequence
from functools import lru_cache
from math import nextafter

PRIOR = 1.0
"""Pseudo-votes of every answer, one not yet seen included: the uniform Dirichlet of Adaptive-Consistency."""

POINTS = 400
"""Of the quadrature: its error is below 1e-4 up to some hundred votes."""

TAIL_DEVIATIONS = 12.0


def lead_posterior(votes: Sequence[float]) -> float:
    """The probability that the answer with the first of `votes` is the most frequent of all.

    votes: what each answer seen so far got, the leader's first; need not be whole. The posterior is a Dirichlet
    (Aggarwal et al. 2023, arXiv 2305.11860) over them and one answer not seen yet, each with PRIOR.
    """
    return _leads(tuple(sorted(votes[1:], reverse=True)), votes[0]) if votes else 0.0


@lru_cache(maxsize=65536)
def _leads(others: tuple[float, ...], leader: float) -> float:
    """A Dirichlet's components are Gamma variables over their sum, so this is P(Gamma_1 > every other).

    That is the integral of Gamma_1's density times the others' distribution functions, by the midpoint rule.
    """
    import numpy as np

    shapes = np.array([leader, *others, 0.0]) + PRIOR
    largest = float(shapes.max())
    end = largest + TAIL_DEVIATIONS * largest**0.5 + TAIL_DEVIATIONS
    width = end / POINTS
    points = (np.arange(POINTS) + 0.5) * width
    logs = np.outer(shapes - 1, np.log(points)) - points
    densities = np.exp(logs - logs.max(axis=1, keepdims=True))
    densities /= densities.sum(axis=1, keepdims=True)
    below = np.cumsum(densities, axis=1) - densities / 2
    chance = float((densities[0] * np.prod(below[1:], axis=0)).sum())
    return min(chance, nextafter(1.0, 0.0))


def more_votes_needed(votes: Sequence[float], confidence: float, limit: int) -> int:
    """How many more votes, all for the leader, would lift its posterior to `confidence`; `limit` if more."""
    low, high = 0, limit
    first, others = (votes[0], list(votes[1:])) if votes else (0.0, [])
    while low < high:
        middle = (low + high) // 2
        if lead_posterior([first + middle, *others]) >= confidence:
            high = middle
        else:
            low = middle + 1
    return low
