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
from kinetics_serve.strategies.state import Arm, Finish, Launch, Policy, Sample, State, Status, StopReason
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
    _alone: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _samples: dict[tuple[int, int], Cost] = field(default_factory=dict, init=False, repr=False, compare=False)
    _settled: dict[tuple[int, int, int], tuple[Cost, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def worst_case(self, max_tokens: int) -> int:
        """eFLOPs to reserve for a sample: nothing cached, nothing shared, max_tokens generated, and then scored."""
        if self.scoring is None:
            return self.alone(max_tokens)
        return self.eflops(self.sample(max_tokens) + self.scoring(max_tokens))

    def alone(self, tokens: int) -> int:
        """eFLOPs of a sample of so many tokens with nothing cached, nothing shared, and no score."""
        known = self._alone.get(tokens)
        if known is None:
            known = self._alone[tokens] = self.eflops(self.sample(tokens))
        return known

    def sample(self, tokens: int, cached_tokens: int = 0) -> Cost:
        """A sample of so many tokens that shares nothing with others. Policies and replays ask again and again."""
        known = self._samples.get((tokens, cached_tokens))
        if known is None:
            known = self.price.sample(self.prompt_tokens, tokens, self.kv, cached_tokens)
            self._samples[tokens, cached_tokens] = known
        return known

    def settled(self, tokens: int, cached_tokens: int, prompt_steps: int) -> tuple[Cost, int]:
        """A sample that is charged for `prompt_steps` of its reads of the prompt, see Price.settle; also in eFLOPs."""
        known = self._settled.get((tokens, cached_tokens, prompt_steps))
        if known is None:
            others_pay = self.price.reads_others_pay(self.prompt_tokens, tokens, self.kv, prompt_steps)
            cost = self.sample(tokens, cached_tokens) - others_pay
            known = self._settled[tokens, cached_tokens, prompt_steps] = cost, self.eflops(cost)
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
    lowest: float = 0.0


class Run:
    """A policy at work on one request.

    arms: the terms of every model and KV budget that its samples may run on; a policy that knows no arms uses the
    first, `terms`.
    """

    def __init__(self, policy: Policy, terms: Terms, budget: int, *others: Terms) -> None:
        self.policy = policy
        self.terms = terms
        self.arms = (terms, *others)
        self.account = Account(budget)
        self.scoring_cost = ZERO
        self.shared_prefix_eflops = 0
        self.sparse_eflops = 0
        self.cached_tokens: dict[int, int] = {}
        self.samples: list[Sample] = []
        self.finish: Finish | None = None
        self._running = 0
        self._tally = Tally()
        self._prompts = [SharedPrompt(arm.kv.dense_steps(arm.prompt_tokens)) for arm in self.arms]
        self._arms = tuple(Arm(arm.worst_case, arm.max_samples, arm.max_tokens) for arm in self.arms) if others else ()
        self._price = terms.worst_case if terms.scoring is not None else terms.alone
        self._costs: list[Cost] = []
        self._starts: dict[int, int] = {}
        self._scoring: dict[int, Cost] = {}

    @property
    def cost(self) -> Cost:
        """Of all samples that have been settled."""
        return sum(self._costs, ZERO)

    @property
    def state(self) -> State:
        return State(
            samples=tuple(self.samples),
            available=self.account.available,
            recoverable=self.account.reserved,
            price=self._price,
            max_samples=self.terms.max_samples,
            max_tokens=self.terms.max_tokens,
            running=self._running,
            votes=self._tally.votes,
            arms=self._arms,
        )

    def decide(self) -> list[Sample]:
        """Asks the policy, once. Returns the samples to start now, their cost reserved."""
        if self.finish is not None:
            return []
        action = self.policy.decide(self.state)
        if isinstance(action, Launch):
            return self._launch(action)
        if isinstance(action, Finish):
            self.finish = action
        elif not self._running:
            raise RuntimeError(f"{self.policy.name} waits though nothing runs")
        return []

    def conclude(self, reason: StopReason) -> None:
        """Ends the request with the best answer so far."""
        if self.finish is None:
            self.finish = self.policy.conclude(self.state, reason)

    def opened(self, index: int) -> None:
        """A server has accepted the sample: from here on it costs."""
        self._starts[index] = self._prompts[self.samples[index].arm].join()

    def generated(self, index: int, tokens: int) -> None:
        """The sample has `tokens` tokens so far."""
        sample = self.samples[index]
        self._prompts[sample.arm].advance(self._starts[index], tokens)
        self.samples[index] = sample._replace(tokens=tokens, empty=False)

    def scoring(self, index: int, cost: Cost) -> None:
        """The sample is being scored, which costs so much at most: its charge, should the request end meanwhile."""
        self._scoring[index] = cost

    def ended(self, index: int, end: Ended) -> None:
        """The sample is over: charges what it cost and frees the rest of its reservation."""
        if end.scoring != ZERO or self._scoring:
            self._scoring[index] = end.scoring
        sample = self.samples[index]
        reported = end.status is not Status.STOPPED
        self._settle(index, end.tokens, end.cached_tokens if reported else self._cached_for_siblings(sample))
        answer = end.answer if end.status is Status.FINISHED else None
        _, max_tokens, _, _, _, _, _, _, floor, arm = sample
        sample = Sample(index, max_tokens, end.status, end.tokens, answer, end.score, end.empty, end.lowest, floor, arm)
        self.samples[index] = sample
        self._running -= 1
        self._tally.add(sample)

    def failed(self, index: int) -> None:
        """The server failed the sample, or refused it. If that had generated nothing yet, it costs nothing."""
        if self.samples[index].tokens == 0:
            self._starts.pop(index, None)

    def cancel_running(self) -> None:
        """Settles what still runs for the tokens seen."""
        for sample in self.samples:
            if sample.status is Status.RUNNING:
                self._settle(sample.index, sample.tokens, self._cached_for_siblings(sample))
                self.samples[sample.index] = sample._replace(status=Status.CANCELLED)
                self._running -= 1

    def _launch(self, launch: Launch) -> list[Sample]:
        terms = self.arms[launch.arm]
        if launch.count < 1 or not 1 <= launch.max_tokens <= terms.max_tokens:
            raise ValueError(f"{self.policy.name} asked for an impossible launch: {launch}")
        so_far = len(self.samples) if not self._arms else sum(each.arm == launch.arm for each in self.samples)
        if launch.count > terms.max_samples - so_far:
            raise ValueError(f"{self.policy.name} asked for more than max_samples: {launch}")
        launched = []
        for _ in range(launch.count):
            sample = Sample(len(self.samples), launch.max_tokens, floor=launch.floor, arm=launch.arm)
            self.account.reserve(sample.index, terms.worst_case(launch.max_tokens))
            self.samples.append(sample)
            self._running += 1
            launched.append(sample)
        return launched

    def _cached_for_siblings(self, sample: Sample) -> int:
        """Cached tokens of a sample that was cut short, for servers report them at a sample's end only.

        It found the blocks of the prompt that its siblings found, which stay while any of them runs: the least that one
        of them reported. The arm's first sample put them there, and found none that we know of.
        """
        siblings = [each for each in self.samples if each.arm == sample.arm]
        if sample.index == siblings[0].index:
            return 0
        ended = [each.index for each in siblings[1:] if each.status in (Status.FINISHED, Status.TRUNCATED)]
        return min([self.cached_tokens[index] for index in ended], default=0)

    def _settle(self, index: int, tokens: int, cached_tokens: int) -> None:
        if index not in self._starts:  # never accepted
            self.account.settle(index, 0)
            return
        arm = self.samples[index].arm
        terms = self.arms[arm]
        cached_tokens = max(0, min(cached_tokens, terms.prompt_tokens))
        steps = self._prompts[arm].settle(self._starts.pop(index), tokens)
        cost, eflops = terms.settled(tokens, cached_tokens, steps)
        self.shared_prefix_eflops += terms.alone(tokens) - eflops
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
        self._costs.append(cost)
        self.cached_tokens[index] = cached_tokens
        if terms.kv != DENSE:
            self.sparse_eflops += max(0, terms.dense_worst_case(tokens) - terms.alone(tokens))
