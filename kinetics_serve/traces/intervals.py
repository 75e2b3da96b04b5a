"""Confidence intervals of a mean over questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

RESAMPLES = 1000
LEVEL = 0.95
QUANTILE = 1.96
"""Standard deviations of a normal distribution to each side that LEVEL of it lies within."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap(results: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """The mean over questions of the mean over each question's trials, questions resampled with replacement.

    The percentile bootstrap of a clustered sample: trials of one question stand or fall together, so the questions
    are what is drawn again. One question gives an interval of no width, which says nothing.
    """
    import numpy as np

    means = np.array([sum(trials) / len(trials) for trials in results])
    drawn = np.random.default_rng(seed).integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(means.mean()), float(low), float(high))


def share(results: Sequence[Sequence[float]]) -> Interval:
    """The same of values between 0 and 1, such as grades.

    Where all questions came out alike, as where all are right, resampling them finds no width, as though no other
    question could come out differently: the interval is Wilson's there.
    """
    found = bootstrap(results)
    return found if found.low < found.high else wilson(found.mean, len(results))


def wilson(mean: float, questions: int) -> Interval:
    """The score interval of a mean of so many values between 0 and 1 (Wilson 1927).

    Unlike the bootstrap's, it has a width where all values are the same. Where values lie between the two, it is wider
    than it had to be.
    """
    weight = QUANTILE**2 / questions
    centre = (mean + weight / 2) / (1 + weight)
    reach = QUANTILE / (1 + weight) * sqrt(mean * (1 - mean) / questions + weight / questions / 4)
    return Interval(mean, max(0.0, min(mean, centre - reach)), min(1.0, max(mean, centre + reach)))
