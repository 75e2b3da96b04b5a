"""One request's samples and money, driven by whoever has the samples: live servers or recorded traces.

Synchronous and without I/O, so that what is served is what is simulated.
"""

import logging
from collections.abc import Iterator, Sequence
from copy import copy
from typing import NamedTuple

from kinetics_serve.cost import DENSE, ZERO, Cost, SharedPrompt
from kinetics_serve.runner.account import Account, OverBudget
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.state import Finish, Launch, Policy, Sample, State, Status, StopReason
from kinetics_serve.strategies.votes import Tally

logger = logging.getLogger(__name__)

STREAM_INTERVAL = 8
"""Tokens that a server tells of at a time where nobody looks on: each telling costs both sides CPU time."""


def interval_of(sample: Sample, stream_interval: int) -> int:
    """Tokens that a server tells of at a time, after the first: of a sample with a floor, which may be stopped at any
    token, one.
    """
    return 1 if sample.floor is not None else stream_interval


class Extra(NamedTuple):
    """What a sample costs beside its own generation: to force its answer, to group it by meaning, and to score it."""

    forced: Cost = ZERO
    grouped: Cost = ZERO
    scored: Cost = ZERO
    forced_tokens: int = 0
    """Generated to force its answer."""

    @property
    def cost(self) -> Cost:
        return self.forced + self.grouped + self.scored

    def plus(self, other: "Extra") -> "Extra":
        return Extra(
            self.forced + other.forced,
            self.grouped + other.grouped,
            self.scored + other.scored,
            self.forced_tokens + other.forced_tokens,
        )


NO_EXTRA = Extra()


class Ended(NamedTuple):
    """How a sample ended, by whoever ran it. See Sample for what is not explained."""

    status: Status
    tokens: int
    cached_tokens: int = 0
    """Of the prompt: what the server reported as found in its prefix cache."""
    answer: str | None = None
    score: float = 0.0
    empty: bool = True
    extra: Extra = NO_EXTRA
    lowest: float = 0.0
    no_vote: str | None = None


class Run:
    """A policy at work on one request, whose samples run on `arms`.

    stream_interval: tokens that a server tells of at a time, so that a running sample may have generated more.
    """

    def __init__(self, policy: Policy, arms: Sequence[Arm], budget: int, stream_interval: int = 1) -> None:
        self.policy = policy
        self.arms = tuple(arms)
        self.account = Account(budget)
        self.extras = NO_EXTRA
        """Of all samples that have been settled."""
        self.shared_prefix_eflops = 0
        self.sparse_eflops = 0
        self.cached_tokens: dict[int, int] = {}
        self.samples: list[Sample] = []
        self.finish: Finish | None = None
        self.failures: dict[int, Exception] = {}
        """Of the samples that failed, what was said."""
        self._stream_interval = stream_interval
        self._running = 0
        self._launched = [0] * len(self.arms)
        self._first: dict[int, int] = {}
        """The index of each arm's first sample."""
        self._found: dict[int, int] = {}
        """Of each arm's later samples, the fewest cached tokens that one which ended has reported."""
        self._tally = Tally()
        self._prompts = [SharedPrompt(arm.kv.dense_steps(arm.prompt_tokens)) for arm in self.arms]
        self._costs: list[Cost] = []
        self._starts: dict[int, int] = {}
        self._extra: dict[int, Extra] = {}

    @property
    def cost(self) -> Cost:
        """Of all samples that have been settled."""
        return sum(self._costs, ZERO)

    @property
    def completion_tokens(self) -> int:
        """Of all samples so far, forced answers included."""
        return sum([sample.tokens for sample in self.samples]) + self.extras.forced_tokens

    def spent_so_far(self) -> int:
        """eFLOPs that the request would be charged if it were cancelled now; never more than the budget."""
        return self.so_far()[1]

    def so_far(self) -> tuple[Cost, int]:
        """What `spent_so_far` consists of, and that."""
        cost, spent = self.cost, self.account.spent
        for each, eflops in self._running_costs():
            cost += each
            spent += eflops
        return cost, spent

    def _running_costs(self) -> Iterator[tuple[Cost, int]]:
        """What each sample that runs would be charged now, also in eFLOPs."""
        prompts = [copy(prompt) for prompt in self._prompts]
        for sample in self.samples:
            start = self._starts.get(sample.index)
            if sample.status is not Status.RUNNING or start is None:
                continue
            arm = self.arms[sample.arm]
            tokens = self._generated(sample)
            steps = prompts[sample.arm].settle(start, tokens)
            cost, eflops = arm.settled(tokens, self._cached_for(sample), steps)
            if (extra := self._extra.get(sample.index)) is not None:
                cost += extra.cost
                eflops = arm.eflops(cost)
            yield cost, min(eflops, self.account.reservation(sample.index))

    @property
    def early_stop_eflops(self) -> float:
        """What a vote that went on after the consensus would have cost more: further samples like those it had, as far
        as budget and max_samples went.
        """
        if self.finish is None or self.finish.reason != "consensus":
            return 0.0
        further = sum(arm.max_samples for arm in self.arms) - self.samples_ended
        return min(self.account.available, further * self.account.spent / self.samples_ended)

    @property
    def samples_ended(self) -> int:
        """When nothing runs any more: how many samples were neither cancelled nor failed."""
        return sum([sample.status not in (Status.CANCELLED, Status.FAILED) for sample in self.samples])

    @property
    def agreement(self) -> float | None:
        """The share of the votes that say what the winner says, 0 where that has no vote; None where nobody voted."""
        votes = self._tally.votes
        winner = self.finish.winner if self.finish is not None else None
        answer = self.samples[winner].answer if winner is not None else None
        agreeing = sum([vote.count for vote in votes if vote.answer == answer])
        return agreeing / sum([vote.count for vote in votes]) if votes else None

    @property
    def state(self) -> State:
        return State(
            tuple(self.samples),
            self.account.available,
            self.account.reserved,
            self.arms,
            self._running,
            self._tally.votes,
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
        self.samples[index] = sample._replace(tokens=tokens, empty=tokens == 0)

    def told(self, index: int, tokens: int) -> int:
        """How many a server has told of where the sample has generated so many: of the first at once."""
        return tokens - (tokens - 1) % interval_of(self.samples[index], self._stream_interval) if tokens else 0

    def extra(self, index: int, extra: Extra) -> None:
        """The sample's answer is being forced, or scored, which costs so much at most: its charge, should the request
        end meanwhile.
        """
        self._extra[index] = extra

    def ended(self, index: int, end: Ended) -> None:
        """The sample is over: charges what it cost and frees the rest of its reservation."""
        if end.extra != NO_EXTRA or self._extra:
            self._extra[index] = end.extra
        sample = self.samples[index]
        reported = end.status is not Status.STOPPED
        self._settle(index, end.tokens, end.cached_tokens if reported else self._cached_for(sample))
        if reported and index != self._first[sample.arm]:
            found = self.cached_tokens[index]
            self._found[sample.arm] = min(found, self._found.get(sample.arm, found))
        answer = end.answer if end.status is Status.FINISHED else None
        _, max_tokens, _, _, _, _, _, _, floor, arm, _ = sample
        status, tokens, score, empty, lowest = end.status, end.tokens, end.score, end.empty, end.lowest
        sample = Sample(index, max_tokens, status, tokens, answer, score, empty, lowest, floor, arm, end.no_vote)
        self.samples[index] = sample
        self._running -= 1
        self._tally.add(sample)

    def failed(self, index: int, error: Exception) -> None:
        """The server failed the sample, or refused it: it has no vote, and the others go on.

        Charged is what it may have generated, with what is extra at its worst. If it told of nothing, it costs nothing.
        """
        if self.samples[index].tokens == 0:
            self._starts.pop(index, None)
        self._cut_short(index, Status.FAILED)
        self.failures[index] = error

    @property
    def hopeless(self) -> bool:
        """All samples so far have failed, and none runs."""
        return len(self.failures) == len(self.samples) > 0

    def cancel_running(self) -> None:
        """Settles what still runs for what it may have generated."""
        for sample in self.samples:
            if sample.status is Status.RUNNING:
                self._cut_short(sample.index, Status.CANCELLED)

    def _launch(self, launch: Launch) -> list[Sample]:
        arm = self.arms[launch.arm]
        if launch.count < 1 or not 1 <= launch.max_tokens <= arm.max_tokens:
            raise ValueError(f"{self.policy.name} asked for an impossible launch: {launch}")
        if launch.count > arm.max_samples - self._launched[launch.arm]:
            raise ValueError(f"{self.policy.name} asked for more than max_samples: {launch}")
        launched = []
        for _ in range(launch.count):
            sample = Sample(len(self.samples), launch.max_tokens, floor=launch.floor, arm=launch.arm)
            self.account.reserve(sample.index, arm.worst_case(launch.max_tokens))
            self.samples.append(sample)
            self._first.setdefault(launch.arm, sample.index)
            launched.append(sample)
        self._running += launch.count
        self._launched[launch.arm] += launch.count
        return launched

    def _cached_for(self, sample: Sample) -> int:
        """Cached tokens of a sample that was cut short, for servers report them at a sample's end only.

        The arm's first sample put the prompt's blocks there, and found none that we know of. The others found the
        blocks that their siblings found, which stay while any of them runs, so the least that one of them reported.
        """
        return 0 if self._first[sample.arm] == sample.index else self._found.get(sample.arm, 0)

    def _generated(self, sample: Sample) -> int:
        """Tokens that a sample which runs may have generated, at most."""
        if sample.tokens == 0 or sample.index in self._extra:  # or its stream has ended, and it is forced or scored
            return sample.tokens
        return min(sample.tokens + interval_of(sample, self._stream_interval) - 1, sample.max_tokens)

    def _cut_short(self, index: int, status: Status) -> None:
        sample = self.samples[index]
        tokens = self._generated(sample)
        self._settle(index, tokens, self._cached_for(sample))
        self.samples[index] = sample._replace(status=status, tokens=tokens, answer=None)
        self._running -= 1

    def _settle(self, index: int, tokens: int, cached_tokens: int) -> None:
        if index not in self._starts:  # never accepted
            self.account.settle(index, 0)
            return
        number = self.samples[index].arm
        arm = self.arms[number]
        cached_tokens = max(0, min(cached_tokens, arm.prompt_tokens))
        steps = self._prompts[number].settle(self._starts.pop(index), tokens)
        cost, eflops = arm.settled(tokens, cached_tokens, steps)
        self.shared_prefix_eflops += arm.alone(tokens) - eflops
        extra = self._extra.pop(index, None)
        if extra is not None:
            cost += extra.cost
            eflops = arm.eflops(cost)
            self.extras = self.extras.plus(extra)
        try:
            self.account.settle(index, eflops)
        except OverBudget as error:  # only a server that generates more than it was asked for gets here
            logger.error("%s; the reservation is charged", error)
            self.account.settle(index, self.account.reservation(index))
        self._costs.append(cost)
        self.cached_tokens[index] = cached_tokens
        if arm.kv != DENSE:
            self.sparse_eflops += max(0, arm.dense(tokens) - arm.alone(tokens))
