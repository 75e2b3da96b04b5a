"""How sure votes make us that their leader is the answer the model gives most often, all answers considered."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, log2, nextafter
from typing import Any

PRIOR = 1.0
"""Pseudo-votes of every answer, one not yet seen included: the uniform Dirichlet of Adaptive-Consistency."""

POINTS = 400
"""Of the quadrature: its error is below 1e-3 up to some hundred votes."""

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
    largest = max(leader, *others, 0.0) + PRIOR
    scale = 1 << ceil(log2(largest))  # in powers of two, so that a Gamma variable is tabulated for few of them
    density, _ = _gamma(leader + PRIOR, scale)
    _, below = _gamma(PRIOR, scale)
    for votes in others:
        below = below * _gamma(votes + PRIOR, scale)[1]
    return min(float(density @ below), nextafter(1.0, 0.0))


@lru_cache(maxsize=8192)
def _gamma(shape: float, scale: int) -> tuple[Any, Any]:
    """Mass in and below each of POINTS cells that reach far enough for shapes up to `scale`; float64, [POINTS]."""
    import numpy as np

    width = (scale + TAIL_DEVIATIONS * scale**0.5 + TAIL_DEVIATIONS) / POINTS
    points = (np.arange(POINTS) + 0.5) * width
    logs = (shape - 1) * np.log(points) - points
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    return mass, np.cumsum(mass) - mass / 2


@lru_cache(maxsize=65536)
def more_votes_needed(votes: tuple[float, ...], confidence: float, limit: int, coming: int = 0) -> int:
    """How many more votes, all for the leader, would lift its posterior to `confidence`; `limit` if more.

    coming: votes that come anyway, so that fewer are not looked for and the answer is at least that.
    """
    low, high = coming, max(coming, limit)
    first, others = (votes[0], votes[1:]) if votes else (0.0, ())
    if lead_posterior((first + low, *others)) >= confidence:
        return low
    while low < high:
        middle = (low + high) // 2
        if lead_posterior((first + middle, *others)) >= confidence:
            high = middle
        else:
            low = middle + 1
    return low
