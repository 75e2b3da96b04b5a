"""What a policy sees of one request, and what it can do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from kinetics_serve.strategies.arm import Arm

MIN_SAMPLE_TOKENS = 16
"""A sample shorter than this can hardly hold an answer, so none is launched with less."""

LARGEST_SCORE = 1e100
"""In magnitude: what is computed from scores (sums, squares) has to stay within a float."""

StopReason = Literal["consensus", "budget", "max_samples", "deadline", "single"]


class Status(StrEnum):
    """Where a sample stands. Only a finished one has an answer, and a vote."""

    RUNNING = "running"
    FINISHED = "finished"
    TRUNCATED = "truncated"
    """Cut off by its max_tokens."""
    STOPPED = "stopped"
    """Given up by its policy's floor."""
    CANCELLED = "cancelled"
    FAILED = "failed"
    """By its server, or by what should have scored it."""


class Sample(NamedTuple):  # this, Vote and State: a replay makes thousands a second, and frozen dataclasses are slow
    """One sample of the request's prompt."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    max_tokens: int
    status: Status = Status.RUNNING
    tokens: int = 0
    answer: str | None = None
    """The label of the equivalence class that its answer fell into; None where none could be extracted."""
    score: float = 0.0
    """Higher is better; comparable within one request only."""
    empty: bool = True
    """It generated no text but white space."""
    lowest: float = 0.0
    """Its lowest group confidence, in nats, see strategies.confidence."""
    floor: float | None = None
    """The lowest group confidence below which it is stopped."""
    arm: int = 0
    """The index in State.arms of what it runs on."""
    no_vote: str | None = None
    """Why it has no answer, see answers.reader.NoVote; None where it has one, or where its status says so."""


class Vote(NamedTuple):
    """An answer, how many samples gave it, and the sum of their scores."""

    answer: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    weight: float


class State(NamedTuple):
    """One request: its samples so far and what is left to spend."""

    samples: tuple[Sample, ...]
    available: int
    """eFLOPs neither spent nor reserved."""
    recoverable: int
    """eFLOPs reserved by running samples, part of which may come back."""
    arms: tuple[Arm, ...]
    """What samples may run on. Most requests have one; a policy that knows of no others uses the first."""
    running: int
    """How many samples run. This and the votes follow from the samples; the runner keeps count, for speed."""
    votes: tuple[Vote, ...]
    """See votes.tally."""

    @property
    def arm(self) -> Arm:
        return self.arms[0]

    def with_status(self, *statuses: Status) -> Iterator[Sample]:
        return (sample for sample in self.samples if sample.status in statuses)

    @property
    def samples_left(self) -> int:
        return self.arm.max_samples - len(self.samples)

    def affordable(self, max_tokens: int) -> int:
        """How many more samples of `max_tokens` may start now."""
        return max(0, min(self.samples_left, self.available // self.arm.worst_case(max_tokens)))

    def longest_affordable(self) -> int:
        """The largest max_tokens that one more sample can have now, in tokens; 0 if not even one token."""
        low, high = 0, self.arm.max_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self.arm.worst_case(middle) <= self.available:
                low = middle
            else:
                high = middle - 1
        return low


@dataclass(frozen=True, slots=True)
class Launch:
    """Start `count` samples of at most `max_tokens` each. The runner reserves their worst case first."""

    count: int
    max_tokens: int
    floor: float | None = None
    """Stop each as soon as its lowest group confidence falls below so many nats."""
    arm: int = 0
    """The index in State.arms of what they run on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until a running sample ends."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Answer with sample `winner` and cancel what still runs."""

    winner: int | None
    """None: nothing usable was generated."""
    reason: StopReason
    confidence: float | None = None
    """The probability, between 0 and 1, that the policy gives its answer; None where it has no estimate of one."""


Action = Launch | Wait | Finish


class Policy(Protocol):
    """A strategy. `decide` is called at the start and whenever a sample has ended, until it finishes."""

    @property
    def name(self) -> str: ...

    def decide(self, state: State) -> Action: ...

    def conclude(self, state: State, reason: StopReason) -> Finish:
        """The best answer so far, for when something outside the policy (a deadline) ends the request."""
        ...
