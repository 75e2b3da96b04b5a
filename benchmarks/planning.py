"""What is planning worth? Plans of a calibration against fixed-N self-consistency with dense attention, by replay.

The questions of recorded traces are halved at random, several times. Each half is calibrated on, and what its plans
bring is measured on the other, so that every question is held out equally often. For every N, the plan is asked for

* accuracy: what self-consistency with N samples reached on the calibration half,
* budget: what N samples of full length reserve, a limit that self-consistency itself seldom comes near,
* spend: no more on average than self-consistency with N samples spent on the calibration half.

Prints accuracies and eFLOPs on the held-out questions, with 95 % intervals of the difference and of the ratio that
resample questions, and writes JSON. Traces of the same task with a KV budget may stand beside the dense ones.

    kinetics-serve eval --task times-tables --upstream URL --out traces --trials 16 --max-tokens 100
    python -m benchmarks.planning traces/*.jsonl [--splits 4] [--out DIR]
"""

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.attention_speed import machine
from kinetics_serve.commands.terminal import chosen_hardware
from kinetics_serve.cost import DENSE, Price
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.planner.calibrate import calibrate
from kinetics_serve.planner.calibration import CalibratedArm, Calibration, FixedPoint, ServedPoint
from kinetics_serve.planner.choose import ArmOf, Choice, at_recorded_lengths, choose_for_accuracy, choose_for_budget
from kinetics_serve.runner.replays import Outcome, Recording, replay_all
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.spec import powers_of_two
from kinetics_serve.traces.intervals import LEVEL, RESAMPLES, Interval, bootstrap
from kinetics_serve.traces.traces import Traces, read

HARDWARE = "paper-b200"
"""The paper's: on a CPU's prices, arithmetic hides what attention costs."""

REPEATS = 50
"""Times that a held-out question is asked."""

NO_LIMIT = 10**30
"""eFLOPs."""

AIMS = ("accuracy", "budget", "spend")


Pair = tuple[float, float, float, float]
"""A question, held out: accuracy and eFLOPs of the plan, then of self-consistency."""


@dataclass(frozen=True, slots=True)
class Row:
    """N of self-consistency, what the plan was asked for, and means over held-out questions."""

    samples: int
    aim: str
    accuracy: float
    eflops: float
    plan_accuracy: float
    plan_eflops: float
    difference: Interval
    """Of accuracies, the plan's less self-consistency's."""
    ratio: Interval
    """Of eFLOPs, the plan's to self-consistency's."""
    plans: dict[str, int]
    """How often each was chosen."""

    def __str__(self) -> str:
        return (
            f"{self.samples:3}  {self.aim:8}  {self.accuracy:.3f} {self.eflops:.2e}  {self.plan_accuracy:.3f} "
            f"{self.plan_eflops:.2e}  {self.difference.mean:+.3f} ({self.difference.low:+.3f} to "
            f"{self.difference.high:+.3f})  {self.ratio.mean:.2f} ({self.ratio.low:.2f} to {self.ratio.high:.2f})"
        )


def halves(queries: Sequence[str], splits: int, seed: int) -> Iterator[tuple[frozenset[str], frozenset[str]]]:
    """Random halves, each pair both ways."""
    chance = random.Random(seed)
    for _ in range(splits):
        shuffled = chance.sample(queries, len(queries))
        one, other = frozenset(shuffled[::2]), frozenset(shuffled[1::2])
        yield one, other
        yield other, one


def part(traces: Traces, queries: frozenset[str]) -> Traces:
    return Traces(traces.metadata, tuple(question for question in traces.questions if question.query in queries))


def planned(aim: str, calibration: Calibration, baseline: FixedPoint, arm_of: ArmOf[Arm]) -> Choice[Arm]:
    """The plan for what the baseline reached, reserved or spent; for less accuracy, where that is out of reach."""
    if aim == "accuracy":
        most = max(point.accuracy.mean for point in calibration.served)
        return choose_for_accuracy(calibration, min(baseline.majority.mean, most), arm_of)
    if aim == "spend":
        cheap = tuple(point for point in calibration.served if point.spent.mean <= baseline.eflops.mean)
        choice = choose_for_budget(replace(calibration, served=cheap), NO_LIMIT, arm_of)
    else:
        arm = arm_of(CalibratedArm(baseline.model, DENSE, baseline.max_tokens, baseline.samples))
        assert arm is not None
        choice = choose_for_budget(calibration, baseline.samples * arm.full_length, arm_of)
    assert choice is not None, "less than the cheapest point"
    return choice


def served(choice: Choice[Arm], recordings: dict[tuple[str, int | None], Recording]) -> Outcome:
    """A plan on the questions of `recordings`."""
    point = choice.point
    cut = [replace(recordings[arm.key], max_tokens=arm.max_tokens, max_samples=arm.max_samples) for arm in point.arms]

    def budget(arms: Sequence[Arm]) -> int:
        first, *later = arms
        return int(point.samples_worth * first.full_length) + sum(arm.max_samples * arm.full_length for arm in later)

    return replay_all(cut, lambda arms, eflops: choice.policy, budget, repeats=REPEATS)


def compare(recordings: Sequence[Traces], hardware: HardwareProfile, splits: int, seed: int) -> list[Row]:
    dense = next(traces for traces in recordings if traces.metadata.kv == DENSE)
    queries = sorted(question.query for question in dense.questions)
    pairs: dict[tuple[int, str], dict[str, list[Pair]]] = defaultdict(lambda: defaultdict(list))
    plans: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for known, held_out in halves(queries, splits, seed):
        calibration = calibrate([part(traces, known) for traces in recordings], hardware)
        prompts = [question.prompt_tokens for question in dense.questions if question.query in known]
        arm_of = at_recorded_lengths(calibration, sum(prompts) // len(prompts))
        held = {}
        for traces in recordings:
            architecture = calibration.architectures[traces.metadata.model]
            recording = Recording.whole(part(traces, held_out), Price.on(architecture, hardware))
            held[traces.metadata.model, traces.metadata.kv.budget] = recording
        fixed = {
            point.samples: point
            for point in calibration.fixed
            if point.kv == DENSE and point.model == dense.metadata.model and point.max_tokens == dense.longest
        }
        for samples in powers_of_two(dense.trials)[1:]:
            baseline = replay_all(
                [replace(held[dense.metadata.model, None], max_tokens=dense.longest, max_samples=samples)],
                lambda arms, eflops: SelfConsistency(),
                lambda arms: arms[0].max_samples * arms[0].full_length,
                repeats=REPEATS,
            )
            for aim in AIMS:
                choice = planned(aim, calibration, fixed[samples], arm_of)
                outcome = served(choice, held)
                plans[samples, aim][label(choice.point)] += 1
                for query in sorted(held_out):
                    plan = outcome.by_question[query], outcome.spent_by_question[query]
                    fixed_n = baseline.by_question[query], baseline.spent_by_question[query]
                    pairs[samples, aim][query].append((*plan, *fixed_n))
    return [row(*key, list(pairs[key].values()), plans[key]) for key in sorted(pairs)]


def label(point: ServedPoint) -> str:
    votes = point.options.get("deciding_votes")
    deciding = "" if votes is None else f", {votes} deciding"
    return f"{point.strategy}, {point.samples_worth:g} samples' worth of {point.arm.max_tokens} tokens{deciding}"


def row(samples: int, aim: str, questions: Sequence[Sequence[Pair]], plans: Counter[str]) -> Row:
    """questions: of each, a pair for every time that it was held out."""
    means = np.array([np.mean(each, axis=0) for each in questions])  # [questions, 4]
    plan_accuracy, plan_eflops, accuracy, eflops = means.mean(axis=0).tolist()
    difference = bootstrap((means[:, :1] - means[:, 2:3]).tolist())
    drawn = means[np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 3], [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    ratio = Interval(plan_eflops / eflops, low, high)
    return Row(samples, aim, accuracy, eflops, plan_accuracy, plan_eflops, difference, ratio, dict(plans.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, nargs="+", help="of one task; one file with dense attention")
    parser.add_argument("--splits", type=int, default=4, help="random halves, each used both ways")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/planning"))
    arguments = parser.parse_args()
    recordings = [read(path) for path in arguments.traces]
    hardware = chosen_hardware(HARDWARE)
    rows = compare(recordings, hardware, arguments.splits, arguments.seed)
    task, here = recordings[0].metadata.task, machine()
    print(f"{task}, {len(recordings[0].questions)} questions, priced as on a {hardware.name}, replayed on {here}")
    print("  N  given     self-consistency  its plan          accuracy, difference       eFLOPs, ratio")
    for each in rows:
        print(each)
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"task": task, "machine": here, "hardware": hardware.name, "rows": [asdict(each) for each in rows]}
    (arguments.out / f"{task}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
