import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, Cost, KVPolicy, Price
from kinetics_serve.runner.live import drive
from kinetics_serve.runner.replay import replay
from kinetics_serve.runner.replays import Recording, cached_tokens, replay_all
from kinetics_serve.runner.run import Ended, Run, interval_of
from kinetics_serve.strategies.arm import Arm
from kinetics_serve.strategies.auto import auto
from kinetics_serve.strategies.best_of_n import BestOfN
from kinetics_serve.strategies.cascade import Cascade
from kinetics_serve.strategies.consensus import Consensus
from kinetics_serve.strategies.deepconf import DeepConf
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.race import Race
from kinetics_serve.strategies.self_consistency import SelfConsistency
from kinetics_serve.strategies.single import Single
from kinetics_serve.strategies.spec import policy_of
from kinetics_serve.strategies.state import Policy, Sample, Status
from kinetics_serve.traces.traces import Trial
from tests.arms import PRICE, arm_of
from tests.synthetic import ARCHITECTURE, synthetic

STRATEGIES = [
    "single",
    "best_of_n",
    "majority_vote",
    "race",
    "consensus",
    "weighted_vote",
    "deepconf",
    "self_consistency",
    "auto",
]


def policy_for(strategy: str, arm: Arm, budget: int, stop_confidence: float, deciding: int | None) -> Policy:
    options = {"deciding_votes": deciding} if strategy == "race" else {}
    name = auto(arm, budget, greedy=False) if strategy == "auto" else strategy
    return policy_of(name, options, stop_confidence)


class Steps:
    """Decode steps of a batch: every stream gets its next token, then those that are done end, in their order."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {"token": [], "end": []}

    async def next(self, phase: str, index: int) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting[phase].append((index, future))
        await future

    async def run(self) -> None:
        while True:
            for phase in ("token", "end"):
                await settled()
                waiting, self._waiting[phase] = sorted(self._waiting[phase], key=lambda each: each[0]), []
                for _, future in waiting:
                    if not future.done():
                        future.set_result(None)
            await settled()


async def settled() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


class RecordedSource:
    """Streams recorded trials as a live server would. trials: of each arm. interval: see Run."""

    def __init__(self, trials: Sequence[Sequence[Trial]], cached: int, interval: int) -> None:
        self.steps = Steps()
        self.interval = interval
        self.trials = [iter(each) for each in trials]
        self.cached = [0, *([cached] * 99)]
        self.opened = [0] * len(trials)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        trial = next(self.trials[sample.arm])
        cached = self.cached[self.opened[sample.arm]]
        self.opened[sample.arm] += 1
        yield 0
        tokens = min(trial.tokens, sample.max_tokens)
        lows = dict(trial.lows)
        for token in range(1, tokens + 1):
            await self.steps.next("token", sample.index)
            if (token - 1) % interval_of(sample, self.interval) == 0:
                yield token
            if sample.floor is not None and lows.get(token, sample.floor) < sample.floor:
                await self.steps.next("end", sample.index)
                yield Ended(Status.STOPPED, token, 0, None, trial.confidence, trial.empty, lowest=trial.worst_window)
                return
        await self.steps.next("end", sample.index)
        whole = trial.status is Status.FINISHED and trial.tokens <= sample.max_tokens
        yield Ended(
            Status.FINISHED if whole else Status.TRUNCATED,
            tokens,
            cached,
            trial.answer,
            trial.confidence,
            trial.empty,
            lowest=trial.worst_window,
        )


async def live(run: Run, cached: int, interval: int, *trials: Sequence[Trial]) -> None:
    source = RecordedSource(trials, cached, interval)
    ticking = asyncio.create_task(source.steps.run())
    try:
        await drive(run, source)
    finally:
        ticking.cancel()


@settings(max_examples=40, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 10_000),
    samples_worth=st.floats(0.2, 12),
    max_samples=st.integers(1, 12),
    max_tokens=st.integers(8, 40),
    kv=st.sampled_from([DENSE, KVPolicy(32, 8, 2)]),
    deciding=st.sampled_from([None, 1, 3]),
    interval=st.sampled_from([1, 8]),
)
@example("best_of_n", 98, 2.0, 2, 8, KVPolicy(32, 8, 2), None, 1)  # the later sample is told of before the first ends
def test_replay_and_a_live_run_decide_and_bill_the_same(
    strategy: str,
    seed: int,
    samples_worth: float,
    max_samples: int,
    max_tokens: int,
    kv: KVPolicy,
    deciding: int | None,
    interval: int,
) -> None:
    (question,) = synthetic(seed, questions=1, trials=12, max_tokens=40, skill=0.4).questions
    arm = arm_of(question.prompt_tokens, max_tokens, max_samples, kv)
    budget = int(samples_worth * arm.worst_case(max_tokens))
    policy = policy_for(strategy, arm, budget, 0.9, deciding)
    cached = cached_tokens(question.prompt_tokens)
    replayed, lived = (Run(policy, [arm], budget, interval) for _ in range(2))
    replay(replayed, [question.trials], [cached])
    asyncio.run(live(lived, cached, interval, question.trials))
    assert replayed.finish == lived.finish
    assert replayed.samples == lived.samples
    assert replayed.account.spent == lived.account.spent
    assert replayed.cost == lived.cost


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    worth=st.floats(0.2, 12),
    max_samples=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    escalate_below=st.sampled_from([0.5, 0.8, 0.95, 1.0]),
    interval=st.sampled_from([1, 8]),
)
def test_a_cascade_decides_and_bills_the_same_in_replay_and_live_and_keeps_its_budget(
    seed: int, worth: float, max_samples: tuple[int, int], escalate_below: float, interval: int
) -> None:
    cheap, dear = (
        synthetic(seed + arm, questions=1, trials=6, max_tokens=40, skill=skill).questions[0]
        for arm, skill in enumerate((0.3, 0.8))
    )
    large = Price(replace(ARCHITECTURE, parameters=10**9, active_parameters=10**9), 300.0)
    first = arm_of(cheap.prompt_tokens, 40, max_samples[0])
    second = arm_of(dear.prompt_tokens, 30, max_samples[1], price=large, model="large")
    budget = int(worth * first.worst_case(40))
    policy = Cascade((MajorityVote(0.9), Consensus(0.9)), escalate_below)
    replayed, lived = (Run(policy, [first, second], budget, interval) for _ in range(2))
    replay(replayed, [cheap.trials, dear.trials], [16, 16])
    asyncio.run(live(lived, 16, interval, cheap.trials, dear.trials))
    assert replayed.finish == lived.finish
    assert replayed.samples == lived.samples
    assert replayed.cost == lived.cost
    assert replayed.account.spent == lived.account.spent <= budget
    assert replayed.account.reserved == 0
    of_arm = [[sample for sample in replayed.samples if sample.arm == arm] for arm in (0, 1)]
    assert all(len(samples) <= most for samples, most in zip(of_arm, max_samples, strict=True))
    cost = sum(
        (arm.sample(sample.tokens) for arm, samples in zip((first, second), of_arm, strict=True) for sample in samples),
        Cost(),
    )
    assert replayed.cost.compute_flops <= cost.compute_flops  # each arm's samples are charged at its own price


@settings(max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 10_000),
    samples_worth=st.floats(0, 20),
    max_samples=st.integers(1, 16),
    max_tokens=st.integers(1, 400),
    stop_confidence=st.sampled_from([0.6, 0.9, 0.99, 1.0]),
    kv=st.sampled_from([DENSE, KVPolicy(64), KVPolicy(64, 16, 2)]),
    deciding=st.sampled_from([None, 1, 3]),
)
def test_every_policy_keeps_its_budget_and_leaves_nothing_reserved(
    strategy: str,
    seed: int,
    samples_worth: float,
    max_samples: int,
    max_tokens: int,
    stop_confidence: float,
    kv: KVPolicy,
    deciding: int | None,
) -> None:
    (question,) = synthetic(seed, questions=1, skill=random.Random(seed).random()).questions
    arm = arm_of(question.prompt_tokens, max_tokens, max_samples, kv)
    budget = int(samples_worth * arm.worst_case(max_tokens))
    policy = policy_for(strategy, arm, budget, stop_confidence, deciding)
    run = Run(policy, [arm], budget)
    finish = replay(run, [question.trials], [cached_tokens(question.prompt_tokens)])
    assert run.account.spent <= budget
    assert run.account.reserved == 0
    assert len(run.samples) <= max_samples
    assert all(sample.status is not Status.RUNNING for sample in run.samples)
    assert finish.winner is None or not run.samples[finish.winner].empty


def trial(number: int, tokens: int, answer: str = "a") -> Trial:
    return Trial(number, answer, tokens, Status.FINISHED, answer, correct=True)


def test_samples_that_run_together_read_the_prompt_once_a_step() -> None:
    arm = arm_of(100, 50, 3)
    run = Run(SelfConsistency(), [arm], 3 * arm.worst_case(50))
    replay(run, [[trial(0, 10), trial(1, 40), trial(2, 20)]])
    alone = sum(arm.eflops(PRICE.sample(100, tokens)) for tokens in (10, 40, 20))
    shared = PRICE.eflops(PRICE.prompt_reads(100, 70)) - PRICE.eflops(PRICE.prompt_reads(100, 41))
    assert run.account.spent == pytest.approx(alone - shared, abs=3)


def test_a_sample_cut_short_found_the_prompt_in_the_cache_where_its_siblings_did() -> None:
    arm = arm_of(100, 50, 4)
    run = Run(Race(0.8), [arm], 4 * arm.worst_case(50))
    replay(run, [[trial(0, 40), trial(1, 10), trial(2, 12), trial(3, 45)]], [96])
    assert [sample.status for sample in run.samples] == [
        Status.CANCELLED,
        Status.FINISHED,
        Status.FINISHED,
        Status.CANCELLED,
    ]
    assert run.cached_tokens == {0: 0, 1: 96, 2: 96, 3: 96}
    unknown = Run(Race(0.8, deciding_votes=1), [arm], 4 * arm.worst_case(50))
    replay(unknown, [[trial(0, 5), trial(1, 10), trial(2, 12), trial(3, 45)]], [96])
    assert set(unknown.cached_tokens.values()) == {0}


def test_a_sample_cut_short_is_charged_what_its_server_had_not_told_of() -> None:
    arm = arm_of(100, 50, 4)
    trials = [trial(0, 40), trial(1, 10), trial(2, 12), trial(3, 45)]
    told, untold = (Run(Race(0.8), [arm], 4 * arm.worst_case(50), interval) for interval in (1, 8))
    for run in (told, untold):
        replay(run, [trials], [96])
    assert [sample.tokens for sample in told.samples] == [13, 10, 12, 12]
    assert [sample.tokens for sample in untold.samples] == [16, 10, 12, 16]  # of 9, and 7 more
    assert told.account.spent < untold.account.spent


def test_a_sample_that_needs_more_tokens_than_it_may_have_is_cut_off_and_has_no_vote() -> None:
    arm = arm_of(100, 30, 2)
    run = Run(BestOfN(), [arm], 2 * arm.worst_case(30))
    replay(run, [[trial(0, 31), trial(1, 30, "b")]])
    assert [(sample.status, sample.answer, sample.tokens) for sample in run.samples] == [
        (Status.TRUNCATED, None, 30),
        (Status.FINISHED, "b", 30),
    ]


def test_a_sample_that_falls_below_its_floor_is_stopped_there_and_has_no_vote() -> None:
    arm = arm_of(100, 50, 7)
    run = Run(DeepConf(stop_confidence=0.999), [arm], 7 * arm.worst_case(50))
    steady = [replace(trial(number, 40), worst_window=5.0 + number, lows=((16, 5.0 + number),)) for number in range(4)]
    shaky = replace(trial(4, 40, "b"), worst_window=3.0, lows=((16, 6.0), (21, 4.9), (30, 3.0)))
    replay(run, [[*steady, shaky, *steady]], [48])
    assert run.samples[4].floor == 5.0
    assert (run.samples[4].status, run.samples[4].tokens, run.samples[4].answer) == (Status.STOPPED, 21, None)
    assert run.cached_tokens[4] == run.cached_tokens[1] == 48
    assert all(sample.status is Status.FINISHED for sample in run.samples if sample.index != 4)


def test_a_single_sample_is_right_as_often_as_it_was_recorded_to_be() -> None:
    traces = synthetic(questions=40, trials=16)
    outcome = replay_all(
        [Recording(traces, PRICE, 400, 1)],
        lambda *_: Single(),
        lambda arms: arms[0].full_length,
        repeats=50,
    )
    recorded = sum(trial.correct for question in traces.questions for trial in question.trials) / (40 * 16)
    assert outcome.accuracy.mean == pytest.approx(recorded, abs=0.03)
    assert outcome.accuracy.low < outcome.accuracy.mean < outcome.accuracy.high


def test_a_sample_that_was_cut_off_is_not_right_by_what_its_trial_went_on_to_say() -> None:
    traces = synthetic(questions=40, trials=16)
    outcome = replay_all(
        [Recording(traces, PRICE, 60, 1)],
        lambda *_: Single(),
        lambda arms: arms[0].full_length,
        repeats=50,
    )
    trials = [trial for question in traces.questions for trial in question.trials]
    in_time = sum(trial.correct and trial.tokens <= 60 for trial in trials) / len(trials)
    assert in_time < 0.7 * sum(trial.correct for trial in trials) / len(trials)
    assert outcome.accuracy.mean == pytest.approx(in_time, abs=0.03)
