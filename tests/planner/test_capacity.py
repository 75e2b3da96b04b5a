"""Engines for a workload, by hand: every number here is worked out again from the profile and the model."""

from dataclasses import replace

import pytest

from kinetics_serve.cost import DENSE, KVPolicy, Price
from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.hardware_profile import HardwareProfile
from kinetics_serve.cost.layers import AttentionLayers
from kinetics_serve.planner.capacity import DoesNotFit, Engine, Workload, capacity

DEVICE = HardwareProfile("device", 1e12, 1e10, "made up", dollars_per_hour=3.6)
MODEL = Architecture("model", 10**9, 10**9, (AttentionLayers(10, 8, 4, 64),))
ENGINE = Engine(DEVICE, 10e9)
LONG = Workload(requests=0.5, samples=4, prompt_tokens=400, generated_tokens=2000)


def test_memory_is_the_parameters_and_the_samples_with_their_share_of_the_prompt() -> None:
    found = capacity(MODEL, ENGINE, LONG)
    token_bytes = 10 * 4 * 2 * 64 * 2
    assert found.weight_bytes == 2e9
    assert found.sample_bytes == token_bytes * (100 + 2000)
    assert found.room == int((9e9 - 2e9) / found.sample_bytes)


def test_a_step_reads_the_parameters_once_and_pays_the_tokens_eflops() -> None:
    found = capacity(MODEL, ENGINE, LONG)
    price = Price.on(MODEL, DEVICE)
    token_s = price.eflops(price.together(400, 2000, 4)) / 1e12 / 8000
    assert found.step_s == pytest.approx(2e9 / 1e10 + found.batch * token_s)
    assert found.engine_tokens == pytest.approx(found.room / (0.2 + found.room * token_s))


def test_the_engines_bear_the_load_and_one_less_does_not() -> None:
    found = capacity(MODEL, ENGINE, replace(LONG, requests=5.0))
    assert found.engines > 1
    assert found.engines * found.engine_tokens * 0.8 >= 5.0 * 4 * 2000 > (found.engines - 1) * found.engine_tokens * 0.8
    assert found.batch / found.step_s == pytest.approx(5.0 * 4 * 2000 / found.engines)  # as many go out as come in
    assert found.batch <= found.room
    assert found.dollars == pytest.approx(found.engines * 3.6 / 3600 / 5.0)


def test_a_little_load_is_one_engine_with_a_sample_at_a_time() -> None:
    found = capacity(MODEL, ENGINE, replace(LONG, requests=1e-4))
    assert (found.engines, found.batch) == (1, 1.0)


def test_a_kv_budget_needs_fewer_engines_for_long_samples_and_never_more() -> None:
    busy = Workload(requests=20.0, samples=8, prompt_tokens=4000, generated_tokens=8000)
    roomy = replace(ENGINE, memory=200e9)
    dense = capacity(MODEL, roomy, busy)
    sparse = capacity(MODEL, roomy, busy, KVPolicy(512, 16, 2))
    assert sparse.engines < dense.engines
    assert sparse.step_s < dense.step_s or sparse.batch < dense.batch
    whole = capacity(MODEL, roomy, busy, KVPolicy(100_000, 16, 2))
    assert whole == capacity(MODEL, roomy, busy, DENSE)


def test_efficiency_takes_time_and_no_memory() -> None:
    full, half = capacity(MODEL, ENGINE, LONG), capacity(MODEL, replace(ENGINE, efficiency=0.5), LONG)
    assert half.engine_tokens == pytest.approx(full.engine_tokens / 2)
    assert half.room == full.room


def test_two_devices_have_the_memory_and_the_rates_of_two() -> None:
    one, two = capacity(MODEL, ENGINE, LONG), capacity(MODEL, replace(ENGINE, devices=2), LONG)
    assert two.room > 2 * one.room
    assert two.devices == 2 * two.engines


def test_what_does_not_fit_says_what_is_needed_and_what_is_there() -> None:
    with pytest.raises(
        DoesNotFit, match=r"needs 2.0 GB for its parameters .* 1 × device has 0.9 GB for both: take more"
    ):
        capacity(MODEL, replace(ENGINE, memory=1e9), LONG)


@pytest.mark.parametrize(
    "workload",
    [
        Workload(requests=1e-6, samples=8, prompt_tokens=400, generated_tokens=2000),
        Workload(requests=1e-6, samples=2, prompt_tokens=30_000, generated_tokens=1),
    ],
)
def test_a_request_alone_takes_its_prefill_and_its_steps_with_all_its_samples_once(workload: Workload) -> None:
    engine, price = replace(ENGINE, memory=100e9), Price.on(MODEL, DEVICE)
    flops = price.eflops(price.prefill(workload.prompt_tokens))
    for token in range(workload.generated_tokens):  # a step at a time
        now, before = (
            price.together(workload.prompt_tokens, tokens, workload.samples) for tokens in (token + 1, token)
        )
        flops += price.eflops(now - before)
    seconds = flops / 1e12 + workload.generated_tokens * 2e9 / 1e10
    assert capacity(MODEL, engine, workload).request_s == pytest.approx(seconds)


def test_samples_that_an_engine_has_no_room_for_at_once_take_turns() -> None:
    few = capacity(MODEL, replace(ENGINE, max_batch=4), replace(LONG, requests=1e-6, samples=4))
    many = capacity(MODEL, replace(ENGINE, max_batch=4), replace(LONG, requests=1e-6, samples=40))
    assert many.request_s == pytest.approx(10 * few.request_s, rel=0.02)  # but for reads of the prompt that more share


def test_samples_beyond_the_models_longest_context_are_refused() -> None:
    short = replace(MODEL, max_context=2400)
    capacity(short, ENGINE, LONG)
    with pytest.raises(DoesNotFit, match="400 tokens and a sample of 2001 are more than model's longest"):
        capacity(short, ENGINE, replace(LONG, generated_tokens=2001))


@pytest.mark.parametrize("devices", [3, 16])
def test_devices_that_cannot_share_the_heads_evenly_are_refused(devices: int) -> None:
    with pytest.raises(DoesNotFit, match=f"model's 8 attention heads can't be shared evenly by {devices} devices"):
        capacity(MODEL, replace(ENGINE, devices=devices), LONG)
