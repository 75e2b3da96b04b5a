"""From traces to a calibration, by replay."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from kinetics_serve.cost import Price
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.paper import coverage
from kinetics_serve.traces.intervals import Interval, bootstrap
from kinetics_serve.planner.calibration import Calibration, FixedPoint, ServedPoint, Stage
from kinetics_serve.planner.law import laws
from kinetics_serve.planner.plan import StrategyName, policy_of
from kinetics_serve.traces.replays import Outcome, Second, replay_all
from kinetics_serve.runner.run import Terms
from kinetics_serve.strategies.cascade import Cascade
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.state import MIN_SAMPLE_TOKENS, Policy, Status
from kinetics_serve.traces.traces import Question, Traces

FIXED_CAPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Length caps, in parts of the recording's."""

SERVED_QUANTILES = (0.2, 0.35, 0.5, 0.75)
"""Of the lengths of finished samples, as further caps: where one pays depends on them, not on the recording's limit."""

VOTES: tuple[StrategyName, ...] = ("majority_vote", "race", "consensus", "weighted_vote", "deepconf")
STOP_CONFIDENCES = (0.8, 0.95)
ALWAYS_SURE = 2
"""A race that so many votes decide ends before its stop confidence could."""

FIRST_VOTES = 4
"""Samples of a cascade's first stage: as many as can be sure if they all agree."""

ESCALATE_BELOW = (0.7, 0.9)
"""A first stage of four asks the second where less than three of them agree, or less than all."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Arm:
    """Traces and what their samples cost."""

    traces: Traces
    price: Price

    def sample_eflops(self) -> float:
        """The worst case of one sample, on the mean prompt."""
        questions = self.traces.questions
        prompt = sum(question.prompt_tokens for question in questions) // len(questions)
        return self.price.eflops(self.price.sample(prompt, self.traces.longest, self.traces.metadata.kv))

    def replay(self, policy: Policy, worth: float, max_tokens: int, max_samples: int, repeats: int) -> Outcome:
        """worth: the budget in samples of max_tokens."""
        return replay_all(
            self.traces,
            lambda terms, eflops: policy,
            lambda terms: int(worth * terms.worst_case(max_tokens)),
            self.price,
            max_tokens=max_tokens,
            max_samples=max_samples,
            repeats=repeats,
        )


def calibrate(
    recordings: Sequence[Traces],
    hardware: HardwareProfile,
    repeats: int = 10,
    on_progress: Progress = lambda done, of: None,
) -> Calibration:
    """Every point of every recording; their metadata names their architectures.

    Raises ValueError where the recordings are of different tasks, or two of them of one model and KV policy.
    """
    tasks = sorted({traces.metadata.task for traces in recordings})
    if len(tasks) != 1:
        raise ValueError(f"a calibration is of one task, these traces are of {', '.join(tasks) or 'none'}")
    pairs = [(traces.metadata.model, traces.metadata.kv) for traces in recordings]
    if len(set(pairs)) < len(pairs):
        raise ValueError("two of these traces are of the same model and KV policy: record them into one file")
    architectures = {}
    fixed: list[FixedPoint] = []
    served: list[ServedPoint] = []
    for done, traces in enumerate(recordings):
        architecture = traces.metadata.architecture
        if architecture is None:
            raise ValueError(f"the architecture of {traces.metadata.model} is not known")
        architectures[traces.metadata.model] = architecture
        arm = Arm(traces, Price(architecture, hardware.intensity))
        jobs = [*_fixed_jobs(traces), *_served_jobs(traces)]
        for number, job in enumerate(jobs):
            on_progress(done * len(jobs) + number, len(recordings) * len(jobs))
            point = job(arm, repeats)
            if isinstance(point, FixedPoint):
                fixed.append(point)
            else:
                served.append(point)
    arms = [Arm(traces, Price(architectures[traces.metadata.model], hardware.intensity)) for traces in recordings]
    for first in arms:
        for second in arms:
            if first.sample_eflops() < second.sample_eflops():
                served += cascades(first, second, repeats)
    questions = min(len(traces.questions) for traces in recordings)
    return Calibration(
        tasks[0], hardware.name, hardware.intensity, questions, architectures, tuple(fixed), tuple(served), laws(fixed)
    )


Job = Callable[[Arm, int], FixedPoint | ServedPoint]


def _fixed_jobs(traces: Traces) -> Iterator[Job]:
    for cap in _usable(traces, {int(traces.longest * part) for part in FIXED_CAPS}):
        for samples in powers_of_two(traces.trials):
            yield partial(fixed_point, samples=samples, cap=cap)


def _served_jobs(traces: Traces) -> Iterator[Job]:
    groups_recorded = any(trial.lows for question in traces.questions for trial in question.trials)
    for cap in _usable(traces, {traces.longest, *_finished_lengths(traces)}):
        for strategy, worth, stop, votes in _ways(traces.trials):
            if strategy == "deepconf" and not groups_recorded:
                continue
            yield partial(
                _served_point, strategy=strategy, worth=worth, stop_confidence=stop, deciding_votes=votes, cap=cap
            )


def _ways(trials: int) -> Iterator[tuple[StrategyName, int, float, int | None]]:
    """Strategy, samples' worth, stop confidence, and the votes that decide a race."""
    yield "single", 1, 0.95, None
    for worth in powers_of_two(trials)[1:]:
        yield "best_of_n", worth, 0.95, None
        yield "self_consistency", worth, 0.95, None
        for strategy in VOTES:
            for stop in STOP_CONFIDENCES:
                yield strategy, worth, stop, None
        for votes in powers_of_two(worth - 1):
            for stop in STOP_CONFIDENCES if votes > ALWAYS_SURE else STOP_CONFIDENCES[-1:]:
                yield "race", worth, stop, votes


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4 … up to `most`, which is always the last."""
    powers = [2**exponent for exponent in range(most.bit_length()) if 2**exponent <= most]
    return powers if powers[-1] == most else [*powers, most]


def _usable(traces: Traces, caps: set[int]) -> list[int]:
    return sorted(cap for cap in caps if cap >= min(MIN_SAMPLE_TOKENS, traces.longest))


def _finished_lengths(traces: Traces) -> list[int]:
    """The SERVED_QUANTILES, in tokens."""
    trials = [trial for question in traces.questions for trial in question.trials]
    lengths = sorted([trial.tokens for trial in trials if trial.status is Status.FINISHED])
    return [lengths[int(quantile * len(lengths))] for quantile in SERVED_QUANTILES] if lengths else []


def fixed_point(arm: Arm, repeats: int, *, samples: int, cap: int) -> FixedPoint:
    """`samples` samples of at most `cap` tokens each."""
    outcome = arm.replay(SelfConsistency(), samples, cap, samples, repeats)
    metadata = arm.traces.metadata
    found = _coverage(arm.traces.questions, samples, cap)
    return FixedPoint(
        metadata.model, metadata.kv, samples, cap, outcome.eflops, found, outcome.accuracy, outcome.tokens
    )


def _coverage(questions: Sequence[Question], samples: int, cap: int) -> Interval:
    """pass@samples of samples that may have `cap` tokens: one that needs more has no answer."""
    return bootstrap(
        [
            [
                coverage(
                    [
                        float(trial.correct and trial.tokens <= cap and trial.status is Status.FINISHED)
                        for trial in question.trials
                    ],
                    samples,
                )
            ]
            for question in questions
        ]
    )


def _served_point(
    arm: Arm,
    repeats: int,
    *,
    strategy: StrategyName,
    worth: int,
    stop_confidence: float,
    deciding_votes: int | None,
    cap: int,
) -> ServedPoint:
    metadata, trials = arm.traces.metadata, arm.traces.trials
    terms = Terms(arm.price, 1, cap, trials, metadata.kv)
    policy = policy_of(strategy, terms, 0, stop_confidence, deciding_votes=deciding_votes)
    outcome = arm.replay(policy, worth, cap, trials, repeats)
    return ServedPoint(
        metadata.model,
        metadata.kv,
        strategy,
        stop_confidence,
        float(worth),
        trials,
        cap,
        outcome.budget,
        outcome.eflops,
        outcome.accuracy,
        outcome.samples,
        by_question=_by_question(outcome),
        deciding_votes=deciding_votes,
    )


def _by_question(outcome: Outcome) -> tuple[float, ...]:
    return tuple([round(accuracy, 3) for _, accuracy in sorted(outcome.by_question.items())])


def cascades(first: Arm, second: Arm, repeats: int) -> Iterator[ServedPoint]:
    """Two votes at full length, the second where the first is unsure. Questions recorded on both count."""
    asked = {question.query for question in second.traces.questions}
    if not any(question.query in asked for question in first.traces.questions):
        return
    cheap, dear = first.traces, second.traces
    votes = min(FIRST_VOTES, cheap.trials)
    for samples in powers_of_two(dear.trials):

        def budget(terms: Terms, other: Terms, samples: int = samples) -> int:
            return votes * terms.worst_case(terms.max_tokens) + samples * other.worst_case(other.max_tokens)

        for escalate_below in ESCALATE_BELOW:
            vote = MajorityVote(0.95)
            policy = Cascade((vote, vote), escalate_below)
            outcome = replay_all(
                cheap,
                partial(_always, policy),
                budget,
                first.price,
                max_tokens=cheap.longest,
                max_samples=votes,
                repeats=repeats,
                second=Second(dear, second.price, dear.longest, samples),
            )
            yield ServedPoint(
                cheap.metadata.model,
                cheap.metadata.kv,
                "cascade",
                0.95,
                float(votes),
                votes,
                cheap.longest,
                outcome.budget,
                outcome.eflops,
                outcome.accuracy,
                outcome.samples,
                Stage(dear.metadata.model, dear.metadata.kv, samples, dear.longest),
                escalate_below,
                _by_question(outcome),
            )


def _always(policy: Policy, terms: Terms, eflops: int) -> Policy:
    return policy
