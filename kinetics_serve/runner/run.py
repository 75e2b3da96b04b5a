"""One request's samples and money, driven by whoever has the samples: live servers or recorded traces.

Synchronous and without I/O, so that what is served is what is simulated.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from kinetics_serve.cost import DENSE, ZERO, Cost, KVPolicy, Price, SharedPrompt
from kinetics_serve.runner.account import Account, OverBudget
from kinetics_serve.strategies.state import Finish, Launch, Policy, Sample, State, Status, StopReason
from kinetics_serve.strategies.votes import Tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every sample of a request. `max_tokens` is a sample's cap, in tokens.

    scoring: the most that scoring a sample of so many tokens costs, where something but its confidence scores it.
    """

    price: Price
    prompt_tokens: int
    max_tokens: int
    max_samples: int
    kv: KVPolicy = DENSE
    scoring: Callable[[int], Cost] | None = None
    _worst_cases: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _samples: dict[tuple[int, int], Cost] = field(default_factory=dict, init=False, repr=False, compare=False)

    def worst_case(self, max_tokens: int) -> int:
        """eFLOPs to reserve for a sample: nothing cached, nothing shared, max_tokens generated, and then scored."""
        known = self._worst_cases.get(max_tokens)
        if known is None:
            cost = self.sample(max_tokens)
            if self.scoring is not None:
                cost += self.scoring(max_tokens)
            known = self._worst_cases[max_tokens] = self.eflops(cost)
        return known

    def sample(self, tokens: int, cached_tokens: int = 0) -> Cost:
        """A sample of so many tokens that shares nothing with others. Policies and replays ask again and again."""
        known = self._samples.get((tokens, cached_tokens))
        if known is None:
            known = self.price.sample(self.prompt_tokens, tokens, self.kv, cached_tokens)
            self._samples[tokens, cached_tokens] = known
        return known

    def dense_worst_case(self, max_tokens: int) -> int:
        """The same with dense attention: what a budget stated in samples or tokens is counted in."""
        return self.eflops(self.price.sample(self.prompt_tokens, max_tokens))

    def eflops(self, cost: Cost) -> int:
        return ceil(self.price.eflops(cost))


class Ended(NamedTuple):
    """How a sample ended, by whoever ran it.

    cached_tokens: the prompt tokens that the server reported as found in its prefix cache. scoring: what its score
    cost. See Sample for the rest.
    """

    status: Status
    tokens: int
    cached_tokens: int = 0
    answer: str | None = None
    score: float = 0.0
    empty: bool = True
    scoring: Cost = ZERO


class Run:
    """A policy at work on one request."""

    def __init__(self, policy: Policy, terms: Terms, budget: int) -> None:
        self.policy = policy
        self.terms = terms
        self.account = Account(budget)
        self.cost = ZERO
        self.scoring_cost = ZERO
        self.shared_prefix_eflops = 0
        self.sparse_eflops = 0
        self.cached_tokens: dict[int, int] = {}
        self.samples: list[Sample] = []
        self.finish: Finish | None = None
        self._running = 0
        self._tally = Tally()
        self._prompt = SharedPrompt()
        self._starts: dict[int, int] = {}
        self._scoring: dict[int, Cost] = {}

    @property
    def state(self) -> State:
        return State(
            samples=tuple(self.samples),
            available=self.account.available,
            recoverable=self.account.reserved,
            price=self.terms.worst_case,
            max_samples=self.terms.max_samples,
            max_tokens=self.terms.max_tokens,
            running=self._running,
            votes=self._tally.votes,
        )

    def decide(self) -> list[Sample]:
        """Asks the policy until it waits or finishes. Returns the samples to start now, their cost reserved."""
        started: list[Sample] = []
        while self.finish is None:
            state = self.state
            action = self.policy.decide(state)
            if isinstance(action, Launch):
                started += self._launch(action)
            elif isinstance(action, Finish):
                self.finish = action
            else:
                if not state.running:
                    raise RuntimeError(f"{self.policy.name} waits though nothing runs")
                break
        return started

    def conclude(self, reason: StopReason) -> None:
        """Ends the request with the best answer so far."""
        if self.finish is None:
            self.finish = self.policy.conclude(self.state, reason)

    def opened(self, index: int) -> None:
        """A server has accepted the sample: from here on it costs."""
        self._starts[index] = self._prompt.join()

    def generated(self, index: int, tokens: int) -> None:
        """The sample has `tokens` tokens so far."""
        self._prompt.advance(self._starts[index], tokens)
        sample = self.samples[index]
        self.samples[index] = Sample(index, sample.max_tokens, sample.status, tokens, empty=False)

    def scoring(self, index: int, cost: Cost) -> None:
        """The sample is being scored, which costs so much at most: its charge, should the request end meanwhile."""
        self._scoring[index] = cost

    def ended(self, index: int, end: Ended) -> None:
        """The sample is over: charges what it cost and frees the rest of its reservation."""
        if end.scoring != ZERO or self._scoring:
            self._scoring[index] = end.scoring
        self._settle(index, end.tokens, end.cached_tokens)
        answer = end.answer if end.status is Status.FINISHED else None
        max_tokens = self.samples[index].max_tokens
        sample = Sample(index, max_tokens, end.status, end.tokens, answer, end.score, end.empty)
        self.samples[index] = sample
        self._running -= 1
        self._tally.add(sample)

    def failed(self, index: int) -> None:
        """The server failed the sample, or refused it. If that had generated nothing yet, it costs nothing."""
        if self.samples[index].tokens == 0:
            self._starts.pop(index, None)

    def cancel_running(self) -> None:
        """Settles what still runs for the tokens seen. Its cached tokens were never reported: none are assumed."""
        for sample in self.samples:
            if sample.status is Status.RUNNING:
                self._settle(sample.index, sample.tokens, cached_tokens=0)
                self.samples[sample.index] = sample._replace(status=Status.CANCELLED)
                self._running -= 1

    def _launch(self, launch: Launch) -> list[Sample]:
        if launch.count < 1 or not 1 <= launch.max_tokens <= self.terms.max_tokens:
            raise ValueError(f"{self.policy.name} asked for an impossible launch: {launch}")
        if launch.count > self.terms.max_samples - len(self.samples):
            raise ValueError(f"{self.policy.name} asked for more than max_samples: {launch}")
        launched = []
        for _ in range(launch.count):
            sample = Sample(index=len(self.samples), max_tokens=launch.max_tokens)
            self.account.reserve(sample.index, self.terms.worst_case(launch.max_tokens))
            self.samples.append(sample)
            self._running += 1
            launched.append(sample)
        return launched

    def _settle(self, index: int, tokens: int, cached_tokens: int) -> None:
        if index not in self._starts:  # never accepted
            self.account.settle(index, 0)
            return
        terms = self.terms
        cached_tokens = max(0, min(cached_tokens, terms.prompt_tokens))
        steps = self._prompt.settle(self._starts.pop(index), tokens)
        others_pay = terms.price.reads_others_pay(terms.prompt_tokens, tokens, terms.kv, steps)
        cost = terms.sample(tokens, cached_tokens) - others_pay
        eflops = terms.eflops(cost)
        self.shared_prefix_eflops += terms.eflops(terms.sample(tokens)) - eflops
        scoring = self._scoring.pop(index, None)
        if scoring is not None:
            cost += scoring
            eflops = terms.eflops(cost)
            self.scoring_cost += scoring
        try:
            self.account.settle(index, eflops)
        except OverBudget as error:  # only a server that generates more than it was asked for gets here
            logger.error("%s; the reservation is charged", error)
            self.account.settle(index, self.account.reservation(index))
        self.cost += cost
        self.cached_tokens[index] = cached_tokens
        if terms.kv != DENSE:
            self.sparse_eflops += max(0, terms.dense_worst_case(tokens) - terms.eflops(terms.sample(tokens)))
