"""Counting votes, and how sure a count makes us that its leader is the majority's answer."""

from bisect import bisect_left
from collections.abc import Iterable
from functools import lru_cache
from math import nextafter

from kinetics_serve.strategies.state import Sample, Status, Vote


class Tally:
    """The votes of finished samples that have an answer.

    `votes`: most votes first; among equals the higher weight; among those the answer of the sample that started first.
    """

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.votes: tuple[Vote, ...] = ()
        self._by_answer: dict[str, Vote] = {}
        self._first: dict[str, int] = {}
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        answer = sample.answer
        if sample.status is not Status.FINISHED or answer is None:
            return
        known = self._by_answer.get(answer)
        count, weight = (known.count, known.weight) if known is not None else (0, 0.0)
        self._by_answer[answer] = Vote(answer, count + 1, weight + sample.score)
        self._first[answer] = min(self._first.get(answer, sample.index), sample.index)
        self.votes = tuple(sorted(self._by_answer.values(), key=self._rank))

    def _rank(self, vote: Vote) -> tuple[int, float, int]:
        return -vote.count, -vote.weight, self._first[vote.answer]


def tally(samples: Iterable[Sample]) -> tuple[Vote, ...]:
    return Tally(samples).votes


@lru_cache(maxsize=4096)
def lead_confidence(leader: int, runner_up: int) -> float:
    """The probability that the leader is the more frequent answer of the two, given their counts.

    The mass above 1/2 of a Beta(leader + 1, runner_up + 1) posterior (uniform prior), as in Adaptive-Consistency
    (Aggarwal et al. 2023, arXiv 2305.11860). For whole counts it is a binomial tail:
    P(Binomial(leader + runner_up + 1, 1/2) ≤ leader).
    """
    trials = leader + runner_up + 1
    tail = term = 1  # the other tail, P(Binomial ≤ runner_up), in units of 2**-trials: the shorter sum
    for successes in range(runner_up):
        term = term * (trials - successes) // (successes + 1)
        tail += term
    above: float = (2**trials - tail) / 2**trials
    return min(above, nextafter(1.0, 0.0))  # no count of votes makes certain


@lru_cache(maxsize=65536)
def votes_needed(leader: int, runner_up: int, confidence: float, limit: int) -> int:
    """How many more votes, all for the leader, would lift its confidence to `confidence`; `limit` if more.

    At least one where there is no vote yet: with none, either of two answers leads with probability 1/2.
    """
    needed = bisect_left(range(limit), True, key=lambda more: lead_confidence(leader + more, runner_up) >= confidence)
    return needed if leader else max(needed, min(1, limit))
