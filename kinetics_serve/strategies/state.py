"""What a policy sees of one request, and what it can do about it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

MIN_SAMPLE_TOKENS = 16
"""A sample shorter than this can hardly hold an answer, so none is launched with less."""

StopReason = Literal["consensus", "budget", "max_samples", "deadline", "single"]


class Status(StrEnum):
    """Where a sample stands. `TRUNCATED`: cut off by its max_tokens. `STOPPED`: given up by its policy's floor. Neither
    has an answer or a vote.
    """

    RUNNING = "running"
    FINISHED = "finished"
    TRUNCATED = "truncated"
    STOPPED = "stopped"
    CANCELLED = "cancelled"


class Sample(NamedTuple):  # this, Vote and State: a replay makes thousands a second, and frozen dataclasses are slow
    """One sample of the request's prompt.

    answer: the label of the equivalence class that its answer fell into; None where none could be extracted.
    score: higher is better; comparable within one request only.
    empty: it generated no text but white space.
    lowest: its lowest group confidence, in nats (see strategies.confidence). floor: the one at which it is stopped.
    arm: which of the request's models and KV budgets made it, see State.arms.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    max_tokens: int
    status: Status = Status.RUNNING
    tokens: int = 0
    answer: str | None = None
    score: float = 0.0
    empty: bool = True
    lowest: float = 0.0
    floor: float | None = None
    arm: int = 0


class Vote(NamedTuple):
    """An answer, how many samples gave it, and the sum of their scores."""

    answer: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    weight: float


class Arm(NamedTuple):
    """A model with a KV budget: what its samples cost, and how many and how long they may be."""

    price: Callable[[int], int]
    max_samples: int
    max_tokens: int


class State(NamedTuple):
    """One request: its samples so far and what is left to spend.

    available: eFLOPs neither spent nor reserved. price: the worst case, in eFLOPs, of one more sample of so
    many tokens. recoverable: eFLOPs reserved by running samples, part of which may come back. running: how many
    samples run. votes: see votes.tally. Both follow from the samples; the runner keeps count, for speed.
    arms: where the request has several models to choose from; price, max_samples and max_tokens are the first's.
    """

    samples: tuple[Sample, ...]
    available: int
    recoverable: int
    price: Callable[[int], int]
    max_samples: int
    max_tokens: int
    running: int
    votes: tuple[Vote, ...]
    arms: tuple[Arm, ...] = ()

    def with_status(self, *statuses: Status) -> Iterator[Sample]:
        return (sample for sample in self.samples if sample.status in statuses)

    @property
    def samples_left(self) -> int:
        return self.max_samples - len(self.samples)

    def affordable(self, max_tokens: int) -> int:
        """How many more samples of `max_tokens` may start now."""
        return max(0, min(self.samples_left, self.available // self.price(max_tokens)))

    def longest_affordable(self) -> int:
        """The largest max_tokens that one more sample can have now, in tokens; 0 if not even one token."""
        low, high = 0, self.max_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self.price(middle) <= self.available:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True, slots=True)
class Launch:
    """Start `count` samples of at most `max_tokens` each. The runner reserves their worst case first.

    floor: stop each as soon as its group confidence falls below this many nats. arm: the model that they run on.
    """

    count: int
    max_tokens: int
    floor: float | None = None
    arm: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a running sample ends."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer with sample `winner` (None: nothing usable was generated) and cancel what still runs.

    confidence: the probability, between 0 and 1, that the policy gives its answer; None where it has no
    estimate of one.
    """

    winner: int | None
    reason: StopReason
    confidence: float | None = None


Action = Launch | Wait | Finish


class Policy(Protocol):
    """A strategy. `decide` is called at the start and whenever a sample has ended, until it finishes."""

    @property
    def name(self) -> str: ...

    def decide(self, state: State) -> Action: ...

    def conclude(self, state: State, reason: StopReason) -> Finish:
        """The best answer so far, for when something outside the policy (a deadline) ends the request."""
        ...
