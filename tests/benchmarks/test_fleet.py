"""The simulated fleet: its clock, its engines, and what must be true of every run."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from benchmarks.fleet.clock import Standstill, simulate
from benchmarks.fleet.engine import Died, Engine
from benchmarks.fleet.scenario import Scenario, arrivals
from benchmarks.fleet.simulation import Fleet, Run, run
from kinetics_serve import clock
from kinetics_serve.cost.hardware import profile
from kinetics_serve.planner.capacity import Speed
from kinetics_serve.traces.traces import read

TRACES = Path(__file__).parents[2] / "examples" / "traces" / "gsm8k-16.jsonl"
SMALL = Scenario(engines=4, front_ends=2, samples_per_day=4e4, from_hour=15, hours=0.1, stretch=4)
TROUBLED = replace(SMALL, deaths_per_day=500.0, repair_s=20.0)
REQUESTS_PER_S = 0.15
SPEED = Speed(1e9, 1e6, room=2, read_s=0.01, token_s=0.001, prefill_s=0.5)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet(read(TRACES), profile("l4"), memory=24e9)


def test_simulated_time_passes_without_waiting_and_the_product_goes_by_it() -> None:
    async def a_day() -> list[float]:
        seen = [clock.now()]
        await asyncio.sleep(3600)
        seen.append(clock.now())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(82_800):
                await asyncio.Event().wait()
        return [*seen, clock.now()]

    began = time.monotonic()
    assert simulate(a_day()) == pytest.approx([0, 3600, 86_400])
    assert time.monotonic() - began < 600


def test_what_waits_for_the_world_outside_is_noticed() -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Standstill):
        simulate(for_ever())


def test_outside_of_a_loop_the_clock_is_the_processs() -> None:
    before = time.monotonic()
    assert before <= clock.now() <= time.monotonic()


async def told(engine: Engine, prompt: bytes, *tokens: int) -> list[tuple[float, int, int]]:
    """When an engine tells, of how many tokens, and how many of the prompt were cached."""
    events = engine.generate(prompt, 33, list(tokens))
    return [(round(clock.now(), 6), count, cached) async for count, cached in events]


def test_a_step_of_an_engine_takes_what_its_batch_takes() -> None:
    async def two() -> tuple[list[tuple[float, int, int]], ...]:
        engine = Engine("e", SPEED, cached_prompts=10)
        return await asyncio.gather(told(engine, b"a", 1, 10), told(engine, b"b", 10))

    first, second = simulate(two())
    assert first == [(0.5 + 0.012, 1, 0), (0.5 + 10 * 0.012, 10, 0)]
    assert second == first[1:]


def test_an_engine_takes_as_many_samples_as_it_has_memory_for_and_finds_cached_prompts() -> None:
    async def three() -> list[list[tuple[float, int, int]]]:
        engine = Engine("e", SPEED, cached_prompts=10)
        return await asyncio.gather(*(told(engine, b"same", 10) for _ in range(3)))

    *_, last = simulate(three())
    ((second, tokens, cached),) = last
    assert (tokens, cached) == (10, 32)
    assert second == pytest.approx(0.62 + 0.5 / 33 + 10 * 0.011, abs=1e-6)


def test_what_a_dying_engine_did_is_lost_and_an_aborted_sample_leaves_its_place() -> None:
    async def scenario() -> None:
        engine = Engine("e", SPEED, cached_prompts=10)
        lost = asyncio.create_task(told(engine, b"a", 1000))
        await asyncio.sleep(1)
        engine.die()
        with pytest.raises(Died):
            await lost
        engine.start()
        aborted = [asyncio.create_task(told(engine, b"a", 1000)) for _ in range(2)]
        waiting = asyncio.create_task(told(engine, b"b", 1))
        await asyncio.sleep(1)
        assert (engine.load, engine.waiting) == (3, 1)
        for task in aborted:
            task.cancel()
        assert len(await waiting) == 1
        assert engine.load == 0

    simulate(scenario())


def test_requests_come_as_the_day_asks() -> None:
    day = Scenario(1, 1, 1.0)
    hours = [int(second // 3600) for second in arrivals(day, 0.5, Random(1))]
    assert len(hours) == pytest.approx(43_200, rel=0.03)
    assert hours.count(15) == pytest.approx(3 * hours.count(3), rel=0.15)


@pytest.fixture(scope="module")
def calm(fleet: Fleet) -> Run:
    return run(fleet, replace(SMALL, deaths_per_day=0), REQUESTS_PER_S)


@pytest.fixture(scope="module")
def troubled(fleet: Fleet) -> Run:
    return run(fleet, TROUBLED, REQUESTS_PER_S)


def test_a_run_is_the_same_every_time_but_with_another_seed(fleet: Fleet, troubled: Run) -> None:
    assert run(fleet, TROUBLED, REQUESTS_PER_S) == troubled
    assert run(fleet, replace(TROUBLED, seed=1), REQUESTS_PER_S) != troubled


def test_no_budget_is_exceeded_and_what_is_booked_is_what_was_billed(calm: Run) -> None:
    assert len(calm.tally.answered) > 30
    assert 0.1 < calm.tally.most_spent <= 1
    assert calm.booked == calm.tally.billed == calm.tally.spent > 0
    assert calm.reserved == 0


def test_an_engines_death_costs_no_answer_where_others_are_up(troubled: Run) -> None:
    """A request loses its samples with the engine where all of them were there; its client asks again."""
    assert troubled.tally.deaths >= 2
    assert troubled.tally.failed_samples > 0
    assert troubled.tally.retries
    assert troubled.tally.codes.keys() <= {"quota_exceeded"}
    assert len(troubled.tally.answered) > 30


def test_what_failed_is_booked_too_and_no_budget_exceeded(troubled: Run) -> None:
    assert troubled.booked == troubled.tally.spent > troubled.tally.billed
    assert troubled.tally.most_spent <= 1
    assert troubled.reserved == 0


def test_a_deploy_of_engines_and_front_ends_loses_no_answer_and_no_bill(fleet: Fleet) -> None:
    scenario = replace(SMALL, deploy_hour=15.02, restart_s=45.0, restarted_together=0.25, deaths_per_day=0)
    done = run(fleet, scenario, REQUESTS_PER_S)
    assert [what for _, what in done.tally.events][-1] == "all is as before"
    assert done.tally.codes.keys() <= {"quota_exceeded"}
    assert done.booked == done.tally.spent
    assert done.reserved == 0


def test_a_greedy_tenant_is_held_to_its_quota_and_nobody_else_is(fleet: Fleet) -> None:
    done = run(fleet, replace(SMALL, hours=0.03, stretch=1), 1.5)
    assert set(done.tally.codes) == {"quota_exceeded"}
    assert 0 < done.tally.codes["quota_exceeded"] < 0.3 * len(done.tally.answered)
