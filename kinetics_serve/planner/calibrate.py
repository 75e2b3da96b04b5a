"""From traces to a calibration, by replay."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kinetics_serve.cost import Price
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.paper import coverage as pass_at
from kinetics_serve.planner.calibration import CalibratedArm, Calibration, FixedPoint, Recorded, ServedPoint
from kinetics_serve.planner.law import laws
from kinetics_serve.runner.replays import Outcome, Recording, replay_all
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.spec import STRATEGIES, StrategySpec, policy_of, powers_of_two
from kinetics_serve.strategies.state import MIN_SAMPLE_TOKENS, Policy, Status
from kinetics_serve.traces.intervals import share
from kinetics_serve.traces.traces import Question, Traces

FIXED_CAPS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Length caps, in parts of the recording's."""

SERVED_QUANTILES = (0.2, 0.35, 0.5, 0.75)
"""Of the lengths of finished samples, as further caps: where one pays depends on them, not on the recording's limit."""

FIRST_VOTES = 4
"""Samples of a cascade's first stage: as many as can be sure if they all agree."""

ESCALATE_BELOW = (0.7, 0.9)
"""A first stage of four asks the second where less than three of them agree, or less than all."""

Progress = Callable[[int, int], None]


def calibrate(
    recordings: Sequence[Traces],
    hardware: HardwareProfile,
    repeats: int = 10,
    on_progress: Progress = lambda done, of: None,
) -> Calibration:
    """Every point of every recording, on the questions that all of them have: on others, points would differ by those.

    Their metadata names their architectures. Raises ValueError where the recordings are of different tasks or have no
    question in common, or where two of them are of one model and KV policy.
    """
    tasks = sorted({traces.metadata.task for traces in recordings})
    if len(tasks) != 1:
        raise ValueError(f"a calibration is of one task, these traces are of {', '.join(tasks) or 'none'}")
    pairs = [(traces.metadata.model, traces.metadata.kv) for traces in recordings]
    if len(set(pairs)) < len(pairs):
        raise ValueError("two of these traces are of the same model and KV policy: record them into one file")
    shared = set.intersection(*[{question.query for question in traces.questions} for traces in recordings])
    if not shared:
        raise ValueError("no question is in all of these traces, and models can be compared on the same ones only")
    recordings = [
        replace(traces, questions=tuple([question for question in traces.questions if question.query in shared]))
        for traces in recordings
    ]
    architectures = {}
    fixed: list[FixedPoint] = []
    served: list[ServedPoint] = []
    whole: list[Recording] = []
    for done, traces in enumerate(recordings):
        architecture = traces.metadata.architecture
        if architecture is None:
            raise ValueError(f"the architecture of {traces.metadata.model} is not known")
        architectures[traces.metadata.model] = architecture
        recording = Recording.whole(traces, Price.on(architecture, hardware))
        whole.append(recording)
        measurements = [*_fixed(recording, repeats), *_served(recording, repeats)]
        for number, measure in enumerate(measurements):
            on_progress(done * len(measurements) + number, len(recordings) * len(measurements))
            point = measure()
            if isinstance(point, FixedPoint):
                fixed.append(point)
            else:
                served.append(point)
    for first in whole:
        for second in whole:
            if _sample_eflops(first) < _sample_eflops(second):
                served += cascades(first, second, repeats)
    return Calibration(
        tasks[0],
        hardware,
        len(shared),
        architectures,
        tuple(fixed),
        tuple(served),
        laws(fixed),
        tuple(_recorded(traces) for traces in recordings),
    )


def _recorded(traces: Traces) -> Recorded:
    metadata = traces.metadata
    return Recorded(metadata.model, metadata.kv, dict(metadata.sampling), dict(metadata.engine))


Measure = Callable[[], FixedPoint | ServedPoint]


def _sample_eflops(recording: Recording) -> float:
    """The worst case of one sample, on the mean prompt."""
    questions = recording.traces.questions
    prompt = sum(question.prompt_tokens for question in questions) // len(questions)
    return recording.price.eflops(recording.price.sample(prompt, recording.max_tokens, recording.traces.metadata.kv))


def _fixed(recording: Recording, repeats: int) -> Iterator[Measure]:
    longest = recording.traces.longest
    for cap in _usable(recording.traces, {int(longest * part) for part in FIXED_CAPS}):
        for samples in powers_of_two(recording.traces.trials):
            yield partial(fixed_point, recording, repeats, samples=samples, cap=cap)


def _served(recording: Recording, repeats: int) -> Iterator[Measure]:
    traces = recording.traces
    groups_recorded = any(trial.lows for question in traces.questions for trial in question.trials)
    specs = [STRATEGIES.get(name) for name in STRATEGIES.names]
    for cap in _usable(traces, {traces.longest, *_finished_lengths(traces)}):
        for worth in powers_of_two(traces.trials):
            for spec in specs:
                if groups_recorded or not spec.by_group_confidence:
                    for options in spec.trials(worth):
                        yield partial(
                            _served_point, recording, repeats, spec=spec, options=options, worth=worth, cap=cap
                        )


def _usable(traces: Traces, caps: set[int]) -> list[int]:
    return sorted(cap for cap in caps if cap >= min(MIN_SAMPLE_TOKENS, traces.longest))


def _finished_lengths(traces: Traces) -> list[int]:
    """The SERVED_QUANTILES, in tokens."""
    trials = [trial for question in traces.questions for trial in question.trials]
    lengths = sorted([trial.tokens for trial in trials if trial.status is Status.FINISHED])
    return [lengths[int(quantile * len(lengths))] for quantile in SERVED_QUANTILES] if lengths else []


def fixed_point(recording: Recording, repeats: int, *, samples: int, cap: int) -> FixedPoint:
    """`samples` samples of at most `cap` tokens each."""
    cut = replace(recording, max_tokens=cap, max_samples=samples)
    outcome = _replayed(cut, SelfConsistency(), samples, repeats)
    metadata = recording.traces.metadata
    covered = _coverage(recording.traces.questions, samples, cap)
    lost = [outcome.lost_by_question[question.query] for question in recording.traces.questions]
    # The vote of the same draws: exact where nothing is lost, as with one sample, and never above what it votes on.
    votes = [[max(0.0, right - missed)] for right, missed in zip(covered, lost, strict=True)]
    coverage, majority = share([[right] for right in covered]), share(votes)
    return FixedPoint(metadata.model, metadata.kv, samples, cap, outcome.eflops, coverage, majority, outcome.tokens)


def _replayed(recording: Recording, policy: Policy, worth: int, repeats: int) -> Outcome:
    """With a budget of so many samples' worth."""
    return replay_all([recording], partial(_always, policy), lambda arms: worth * arms[0].full_length, repeats=repeats)


def _always(policy: Policy, arms: Sequence[Arm], eflops: int) -> Policy:
    return policy


def _coverage(questions: Sequence[Question], samples: int, cap: int) -> list[float]:
    """pass@samples of each question, exactly, with at most `cap` tokens a sample: one that needs more has no answer."""
    return [
        pass_at(
            [
                float(trial.correct and trial.tokens <= cap and trial.status is Status.FINISHED)
                for trial in question.trials
            ],
            samples,
        )
        for question in questions
    ]


def _served_point(
    recording: Recording, repeats: int, *, spec: StrategySpec, options: Mapping[str, Any], worth: int, cap: int
) -> ServedPoint:
    chosen = spec.options.model_validate(options)
    cut = replace(recording, max_tokens=cap)
    outcome = _replayed(cut, spec.policy(chosen), worth, repeats)
    return _point([cut], spec.name, chosen.model_dump(), worth, outcome)


def cascades(first: Recording, second: Recording, repeats: int) -> Iterator[ServedPoint]:
    """Two votes at full length, the second where the first is unsure."""
    cheap = replace(first, max_samples=min(FIRST_VOTES, first.traces.trials))
    for samples in powers_of_two(second.traces.trials):
        dear = replace(second, max_samples=samples)
        for escalate_below in ESCALATE_BELOW:
            options = {"stop_confidence": 0.95, "escalate_below": escalate_below}
            policy = policy_of("cascade", options)
            outcome = replay_all(
                [cheap, dear],
                partial(_always, policy),
                lambda arms: sum([arm.max_samples * arm.full_length for arm in arms]),
                repeats=repeats,
            )
            yield _point([cheap, dear], "cascade", options, cheap.max_samples, outcome)


def _point(
    recordings: Sequence[Recording], strategy: str, options: Mapping[str, Any], worth: int, outcome: Outcome
) -> ServedPoint:
    arms = [
        CalibratedArm(each.traces.metadata.model, each.traces.metadata.kv, each.max_tokens, each.max_samples)
        for each in recordings
    ]
    return ServedPoint(
        tuple(arms),
        strategy,
        options,
        float(worth),
        outcome.budget,
        outcome.eflops,
        outcome.accuracy,
        outcome.samples,
        tuple([round(accuracy, 3) for _, accuracy in sorted(outcome.by_question.items())]),
        outcome.agreement,
    )
