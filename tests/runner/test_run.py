import asyncio
import time
from collections.abc import AsyncGenerator
from copy import deepcopy
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, KVPolicy, Price
from kinetics_serve.runner.account import Account, OverBudget
from kinetics_serve.runner.live import MOST_IN_VAIN, drive
from kinetics_serve.runner.run import Ended, Extra, Run
from kinetics_serve.strategies.best_of_n import BestOfN
from kinetics_serve.strategies.majority_vote import MajorityVote
from kinetics_serve.strategies.single import Single
from kinetics_serve.strategies.state import (
    Action,
    Finish,
    Launch,
    Policy,
    Sample,
    State,
    Status,
    StopReason,
    Wait,
)
from tests.arms import arm_of

ARCHITECTURE = Architecture(
    "tiny", 1_000_000, 1_000_000, (AttentionLayers(4, 8, 2, 16), AttentionLayers(2, 8, 2, 16, window=64))
)


class EngineFault(Exception):
    pass


@dataclass
class RandomPolicy:
    """Launches and finishes as hypothesis's random numbers say, within what a policy may ask for."""

    numbers: list[int]
    name: str = "random"

    def decide(self, state: State) -> Action:
        number = self.numbers.pop() if self.numbers else 0
        max_tokens = 1 + number % state.arm.max_tokens
        count = min(1 + number % 3, state.affordable(max_tokens))
        if count and number % 5:
            return Launch(count, max_tokens)
        if state.running and number % 7:
            return Wait()
        return self.conclude(state, "budget")

    def conclude(self, state: State, reason: StopReason) -> Finish:
        return Finish(None, reason)


@dataclass
class ScriptedSource:
    """Plays one script a sample: how many tokens, in which chunks, and how it ends."""

    scripts: list[tuple[int, int, str]]
    cached: int = 0
    opened: int = 0
    closed: int = 0
    tokens: list[int] = field(default_factory=list)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        length, chunk, end = self.scripts[sample.index % len(self.scripts)]
        self.opened += 1
        try:
            done = 0
            yield 0
            while done < min(length, sample.max_tokens):
                await asyncio.sleep(0)
                done = min(done + chunk, length, sample.max_tokens)
                yield done
            if end == "fault":
                raise EngineFault
            if end == "hang":
                await asyncio.sleep(3600)
            status = Status.FINISHED if length <= sample.max_tokens else Status.TRUNCATED
            cached = self.cached if sample.index else 0
            yield Ended(status, done, cached, answer=end, score=float(done), empty=done == 0)
        finally:
            self.closed += 1


scripts = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from(["a", "b", "c", "fault", "hang"])),
    min_size=1,
    max_size=8,
)
policies = st.one_of(
    st.just(Single()),
    st.just(BestOfN()),
    st.builds(MajorityVote, st.sampled_from([0.6, 0.9, 0.95, 1.0])),
    st.builds(RandomPolicy, st.lists(st.integers(0, 1000), max_size=30)),
)
kv_policies = st.sampled_from([DENSE, KVPolicy(budget=32), KVPolicy(budget=32, page_size=8, summary_vectors=2)])


@settings(max_examples=300, deadline=None)
@given(
    policy=policies,
    scripts=scripts,
    intensity=st.floats(0, 1000),
    prompt_tokens=st.integers(1, 200),
    cached=st.integers(0, 200),
    max_tokens=st.integers(1, 64),
    max_samples=st.integers(1, 12),
    samples_worth=st.floats(0, 14),
    kv=kv_policies,
    deadline_s=st.sampled_from([None, 0.0, 0.001]),
    interval=st.sampled_from([1, 8]),
)
def test_spent_never_exceeds_the_budget_and_nothing_reserved_is_left_behind(
    policy: Policy,
    scripts: list[tuple[int, int, str]],
    intensity: float,
    prompt_tokens: int,
    cached: int,
    max_tokens: int,
    max_samples: int,
    samples_worth: float,
    kv: KVPolicy,
    deadline_s: float | None,
    interval: int,
) -> None:
    arm = arm_of(prompt_tokens, max_tokens, max_samples, kv, Price(ARCHITECTURE, intensity))
    budget = int(arm.worst_case(max_tokens) * samples_worth)
    run = Run(policy, [arm], budget, interval)
    source = ScriptedSource(scripts, min(cached, prompt_tokens))

    def check() -> None:
        assert run.account.spent + run.account.reserved <= budget
        assert len(run.samples) <= max_samples

    async def play() -> None:
        hangs = any(end == "hang" for _, _, end in scripts)
        limit = 0.01 if hangs and deadline_s is None else deadline_s
        try:
            await drive(run, source, deadline_s=limit, on_change=check)
        except EngineFault:
            assert any(end == "fault" for _, _, end in scripts)

    asyncio.run(play())
    check()
    assert run.account.reserved == 0
    assert all(sample.status is not Status.RUNNING for sample in run.samples)
    assert source.opened == source.closed
    # The bill is the sum of its parts, to the whole eFLOP that each sample is rounded up to.
    assert 0 <= run.account.spent - arm.price.eflops(run.cost) <= len(run.samples) + run.account.spent * 1e-12


@pytest.mark.parametrize("interval", [1, 8])
@pytest.mark.parametrize("kv", [DENSE, KVPolicy(budget=32)])
async def test_what_is_spent_so_far_is_what_a_cancellation_would_be_charged(kv: KVPolicy, interval: int) -> None:
    arm = arm_of(200, 64, 6, kv, Price(ARCHITECTURE, 500))
    run = Run(BestOfN(), [arm], 6 * arm.worst_case(64), interval)
    alone = []

    def check() -> None:
        cancelled = deepcopy(run)
        cancelled.cancel_running()
        assert run.spent_so_far() == cancelled.account.spent
        running = [sample for sample in run.samples if sample.status is Status.RUNNING]
        generated = [min(sample.tokens + interval - 1, 64) if sample.tokens else 0 for sample in running]
        alone.append(run.account.spent + sum(map(arm.worst_case, generated)))
        assert run.spent_so_far() <= alone[-1]
        assert run.so_far() == (cancelled.cost, cancelled.account.spent)

    await drive(run, ScriptedSource([(40, 1, "a"), (60, 7, "b"), (20, 3, "c")], cached=128), on_change=check)
    assert run.spent_so_far() == run.account.spent < max(alone)


async def test_cancelling_a_request_stops_and_settles_its_samples() -> None:
    arm = arm_of(20, 64, 4)
    run = Run(BestOfN(), [arm], 4 * arm.worst_case(64))
    source = ScriptedSource([(40, 1, "hang")])
    task = asyncio.create_task(drive(run, source))
    while source.opened < 4 or not all(sample.tokens == 40 for sample in run.samples):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 4
    assert run.account.reserved == 0
    assert run.account.spent >= 4 * arm.eflops(arm.price.sample(20, 40)) * 0.5
    assert [sample.status for sample in run.samples] == [Status.CANCELLED] * 4


@pytest.mark.parametrize(("told", "charged"), [(0, 0), (1, 8), (25, 32), (60, 64), (64, 64)])
@pytest.mark.parametrize("failed", [False, True])
def test_a_sample_that_is_cut_short_costs_what_it_may_have_generated(told: int, charged: int, failed: bool) -> None:
    arm = arm_of(20, 64, 1)
    run = Run(BestOfN(), [arm], arm.worst_case(64), stream_interval=8)
    run.decide()
    run.opened(0)
    run.generated(0, told)
    if failed:
        run.failed(0, EngineFault())
    else:
        run.cancel_running()
    assert run.samples[0].tokens == charged
    assert run.account.spent == (0 if failed and not told else arm.eflops(arm.price.sample(20, charged)))


def test_a_sample_that_is_scored_has_told_of_all_its_tokens() -> None:
    arm = arm_of(20, 64, 1)
    run = Run(BestOfN(), [arm], arm.worst_case(64), stream_interval=8)
    run.decide()
    run.opened(0)
    run.generated(0, 25)
    run.extra(0, Extra(scored=arm.price.prefill(1)))
    run.cancel_running()
    assert run.samples[0].tokens == 25


def test_a_sample_with_a_floor_tells_of_each_token() -> None:
    arm = arm_of(20, 64, 1)

    class Careful(BestOfN):
        def decide(self, state: State) -> Action:
            return Launch(1, 64, floor=4.0)

    run = Run(Careful(), [arm], arm.worst_case(64), stream_interval=8)
    run.decide()
    run.opened(0)
    run.generated(0, 25)
    run.cancel_running()
    assert run.samples[0].tokens == 25


async def test_the_first_sample_goes_ahead_until_its_prompt_is_cached() -> None:
    arm = arm_of(20, 64, 4)
    run = Run(BestOfN(), [arm], 4 * arm.worst_case(64))
    order: list[tuple[int, str]] = []

    class Source:
        async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
            order.append((sample.index, "opened"))
            yield 0
            await asyncio.sleep(0.01)
            order.append((sample.index, "first token"))
            yield 1
            yield Ended(Status.FINISHED, 1, answer="x", empty=False)

    await drive(run, Source())
    assert order[:2] == [(0, "opened"), (0, "first token")]
    assert {index for index, what in order if what == "opened"} == {0, 1, 2, 3}


async def test_what_an_early_finisher_leaves_buys_further_samples() -> None:
    arm = arm_of(20, 64, 32)
    run = Run(BestOfN(), [arm], 4 * arm.worst_case(64))
    await drive(run, ScriptedSource([(16, 4, "a")]))
    assert len(run.samples) > 4
    assert run.account.spent <= run.account.budget


async def test_a_sample_that_is_refused_costs_nothing() -> None:
    arm = arm_of(20, 64, 4)
    run = Run(BestOfN(), [arm], 4 * arm.worst_case(64))

    class Source:
        async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
            raise EngineFault
            yield 0

    with pytest.raises(EngineFault):
        await drive(run, Source())
    assert (run.account.spent, run.account.reserved) == (0, 0)


async def test_samples_that_still_waited_for_the_first_cost_nothing() -> None:
    arm = arm_of(20, 64, 4)
    run = Run(BestOfN(), [arm], 4 * arm.worst_case(64))

    class Source:
        async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
            yield 0
            await asyncio.sleep(3600)

    await drive(run, Source(), deadline_s=0.01)
    assert run.finish is not None
    assert run.finish.reason == "deadline"
    assert run.account.spent == arm.eflops(arm.price.prefill(20))


def test_an_account_refuses_what_it_cannot_cover() -> None:
    account = Account(100)
    account.reserve(0, 60)
    with pytest.raises(OverBudget):
        account.reserve(1, 41)
    account.settle(0, 10)
    account.reserve(1, 90)
    with pytest.raises(OverBudget):
        account.settle(1, 91)
    assert (account.spent, account.reserved, account.available) == (10, 90, 0)


@dataclass
class FaultySource:
    """Samples that fail before their first token ("early"), after it ("late"), or not ("ok"), by their index."""

    faults: list[str]
    opened: list[int] = field(default_factory=list)

    async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
        fault = self.faults[sample.index]
        self.opened.append(sample.index)
        yield 0
        await asyncio.sleep(0.001)
        if fault == "early":
            raise EngineFault
        yield 5
        if fault == "late":
            raise EngineFault
        yield Ended(Status.FINISHED, 5, answer="x", score=1.0, empty=False)


@given(st.lists(st.sampled_from(["early", "late", "ok"]), min_size=1, max_size=3))
def test_samples_that_fail_leave_the_others_and_pay_what_they_generated(faults: list[str]) -> None:
    arm = arm_of(20, 64, len(faults))
    run, source = Run(BestOfN(), [arm], len(faults) * arm.worst_case(64)), FaultySource(faults)
    if "ok" in faults:
        finish = asyncio.run(drive(run, source))
        assert finish.winner == faults.index("ok")
    else:
        with pytest.raises(EngineFault):
            asyncio.run(drive(run, source))
    by_fault = {"early": (Status.FAILED, 0), "late": (Status.FAILED, 5), "ok": (Status.FINISHED, 5)}
    assert [(sample.status, sample.tokens) for sample in run.samples] == [by_fault[fault] for fault in faults]
    assert run.account.reserved == 0
    assert (run.account.spent > 0) == (set(faults) != {"early"})


async def test_a_request_whose_samples_fail_one_after_the_other_is_given_up() -> None:
    arm = arm_of(20, 64, 32)
    run, source = Run(BestOfN(), [arm], 32 * arm.worst_case(64)), FaultySource(["early"] * 32)
    with pytest.raises(EngineFault):
        await drive(run, source)
    assert len(source.opened) in (MOST_IN_VAIN, MOST_IN_VAIN + 1)  # one more may have begun before it was noticed
    assert (run.account.spent, run.account.reserved) == (0, 0)


async def test_samples_that_ended_in_the_busy_moment_of_the_deadline_vote_too() -> None:
    arm = arm_of(20, 64, 4)
    run = Run(MajorityVote(0.95), [arm], 10 * arm.worst_case(64))

    class Source:
        async def sample(self, sample: Sample) -> AsyncGenerator[int | Ended, None]:
            yield 0
            yield 5
            await asyncio.sleep(0.05)
            yield Ended(Status.FINISHED, 5, 0, "5" if sample.index == 0 else "4", 1.0, False)

    asyncio.get_running_loop().call_later(0.03, time.sleep, 0.2)  # what other requests do with the loop
    finish = await drive(run, Source(), deadline_s=0.1)
    assert finish.winner is not None
    assert run.samples[finish.winner].answer == "4"
    assert run.samples_ended == 4
