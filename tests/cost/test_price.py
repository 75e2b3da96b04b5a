from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, ZERO, Architecture, AttentionLayers, Cost, KVPolicy, Price, Steps, read_config

from . import configs
from .shapes import (
    architectures,
    naive_prefill,
    naive_prompt_read,
    naive_token,
    policies,
    sparse_policies,
)

prompts = st.integers(0, 120)
lengths = st.integers(0, 120)
QWEN = Price(read_config(configs.QWEN3["Qwen3-8B"], "Qwen3-8B"), 562.5)


def loop(architecture: Architecture, prompt: int, start: int, stop: int, kv: KVPolicy) -> Cost:
    return sum((naive_token(architecture, prompt, t, kv) for t in range(start + 1, stop + 1)), ZERO)


@given(architectures, prompts, lengths, lengths, policies)
def test_decode_is_the_loop_over_tokens(
    architecture: Architecture, prompt: int, start: int, more: int, kv: KVPolicy
) -> None:
    price = Price(architecture, 100.0)
    expected = loop(architecture, prompt, start, start + more, kv)
    assert price.decode(prompt, start + more, kv, start=start) == expected


@given(architectures, st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), policies)
def test_parts_of_a_decode_add_up_exactly(
    architecture: Architecture, prompt: int, first: int, second: int, kv: KVPolicy
) -> None:
    price = Price(architecture, 100.0)
    whole = price.decode(prompt, first + second, kv)
    assert price.decode(prompt, first, kv) + price.decode(prompt, first + second, kv, start=first) == whole


@given(architectures, prompts, lengths)
def test_prefill_is_the_loop_over_new_tokens(architecture: Architecture, cached: int, new: int) -> None:
    assert Price(architecture, 1.0).prefill(cached + new, cached) == naive_prefill(architecture, cached + new, cached)


@given(architectures, prompts, lengths, lengths, policies)
def test_prompt_reads_are_the_loop_over_steps(
    architecture: Architecture, prompt: int, start: int, more: int, kv: KVPolicy
) -> None:
    expected = sum((naive_prompt_read(architecture, prompt, t, kv) for t in range(start + 1, start + more + 1)), ZERO)
    assert Price(architecture, 1.0).prompt_reads(prompt, start + more, kv, start=start) == expected


@given(architectures, prompts, lengths, policies)
def test_a_budget_as_long_as_the_sample_costs_what_dense_does(
    architecture: Architecture, prompt: int, generated: int, kv: KVPolicy
) -> None:
    price, full = Price(architecture, 1.0), replace(kv, budget=max(prompt + generated, 1))
    assert price.decode(prompt, generated, full) == price.decode(prompt, generated, DENSE)


@given(architectures, prompts, lengths, policies, st.data())
def test_a_sample_within_its_budget_settles_as_a_dense_one_does(
    architecture: Architecture, prompt: int, tokens: int, kv: KVPolicy, data: st.DataObject
) -> None:
    price, full = Price(architecture, 1.0), replace(kv, budget=max(prompt + tokens, 1))
    cached, steps = data.draw(st.integers(0, prompt)), Steps(data.draw(st.integers(0, tokens)))
    assert price.settle(prompt, tokens, full, cached, steps) == price.settle(prompt, tokens, DENSE, cached, steps)


@given(architectures, sparse_policies, prompts, lengths)
def test_sliding_window_layers_ignore_the_budget(
    architecture: Architecture, kv: KVPolicy, prompt: int, generated: int
) -> None:
    windowed = replace(
        architecture, layers=tuple(AttentionLayers(1, g.count, 1, 8, window=7) for g in architecture.layers)
    )
    price = Price(windowed, 1.0)
    assert price.decode(prompt, generated, kv) == price.decode(prompt, generated, DENSE)


def test_the_cost_of_one_dense_token_is_the_design_formula() -> None:
    cost = QWEN.decode(999, 1)
    assert cost.compute_flops == 2 * (8_190_735_360 - 622_329_856) + 4 * 36 * 32 * 128 * 1000
    assert cost.memory_bytes == 4 * 36 * 8 * 128 * 1000
    assert QWEN.eflops(cost) == cost.compute_flops + 562.5 * cost.memory_bytes


def test_an_fp8_cache_halves_the_bytes_and_leaves_the_flops() -> None:
    fp8 = Price(replace(QWEN.architecture, kv_bytes=1), 562.5)
    for kv in (DENSE, KVPolicy(512, 16, 2)):
        sixteen, eight = QWEN.sample(3000, 500, kv, 100), fp8.sample(3000, 500, kv, 100)
        assert eight.compute_flops == sixteen.compute_flops
        assert 2 * eight.memory_bytes == sixteen.memory_bytes


def test_a_mixture_pays_for_active_parameters_only() -> None:
    group = AttentionLayers(1, 1, 1, 1)
    price = Price(Architecture("moe", 1000, 10, (group,)), 1.0)
    assert price.decode(0, 1).compute_flops == 2 * 10 + 4


def test_quest_reads_its_summaries_once_the_context_exceeds_the_budget() -> None:
    within, beyond = QWEN.decode(511, 1, KVPolicy(512, 16, 2)), QWEN.decode(512, 1, KVPolicy(512, 16, 2))
    pages = 513 // 16
    assert beyond - within == Cost(36 * pages * 32 * 2 * 2 * 128, 36 * pages * 8 * 2 * 128 * 2)


@given(st.integers(0, 100), st.integers(0, 100))
def test_every_cached_token_makes_prefill_cheaper(first: int, second: int) -> None:
    fewer, more = sorted((first, second))
    saved = QWEN.prefill(100, fewer) - QWEN.prefill(100, more)
    assert saved.compute_flops >= 2 * QWEN.architecture.multiplied_parameters * (more - fewer)
    assert saved.memory_bytes >= 0


@given(architectures, prompts, lengths, policies, st.data())
def test_a_settled_sample_costs_between_its_own_part_and_the_whole(
    architecture: Architecture, prompt: int, tokens: int, kv: KVPolicy, data: st.DataObject
) -> None:
    price = Price(architecture, 3.0)
    dense = tokens if kv.budget is None else min(tokens, max(0, kv.budget - prompt))
    cached = data.draw(st.integers(0, prompt))
    charged = Steps(data.draw(st.integers(0, dense)), data.draw(st.integers(0, tokens - dense)))
    whole = price.sample(prompt, tokens, kv, cached)
    settled = price.settle(prompt, tokens, kv, cached, charged)
    assert settled.compute_flops == whole.compute_flops
    assert 0 <= settled.memory_bytes <= whole.memory_bytes
    left = [*range(charged.dense + 1, dense + 1), *range(dense + charged.sparse + 1, tokens + 1)]
    assert settled == whole - sum((naive_prompt_read(architecture, prompt, t, kv) for t in left), ZERO)


def test_samples_beyond_their_budget_read_the_prompts_summaries_once() -> None:
    kv = KVPolicy(512, 16, 2)
    one, eight = QWEN.together(1000, 100, 1, kv), QWEN.together(1000, 100, 8, kv)
    summaries = 36 * 8 * 2 * 128 * 2  # bytes of a page
    own = sum((1000 + t) // 16 - 1000 // 16 for t in range(1, 101))
    read = 36 * 8 * 2 * 128 * 2 * 512 * 100
    assert eight.memory_bytes - one.memory_bytes == 7 * (read + own * summaries)
    assert QWEN.prompt_reads(1000, 100, kv).memory_bytes == 100 * (1000 // 16) * summaries


@given(architectures, prompts, policies, st.floats(0, 1e9), st.integers(0, 200), st.data())
def test_longest_is_the_last_length_that_the_budget_pays(
    architecture: Architecture, prompt: int, kv: KVPolicy, eflops: float, limit: int, data: st.DataObject
) -> None:
    price, cached = Price(architecture, 10.0), data.draw(st.integers(0, prompt))
    fits = [n for n in range(1, limit + 1) if price.eflops(price.sample(prompt, n, kv, cached)) <= eflops]
    assert price.longest(prompt, eflops, kv, cached, limit=limit) == (fits[-1] if fits else 0)
    assert fits == list(range(1, len(fits) + 1))


def test_longest_pays_exactly_its_own_cost() -> None:
    eflops = QWEN.eflops(QWEN.sample(100, 50))
    assert QWEN.longest(100, eflops, limit=1000) == 50
    assert QWEN.longest(100, eflops - 1, limit=1000) == 49


@pytest.mark.parametrize(
    "call",
    [
        lambda: QWEN.prefill(10, 11),
        lambda: QWEN.prefill(-1),
        lambda: QWEN.prefill(10, -1),
        lambda: QWEN.decode(10, -1),
        lambda: QWEN.decode(10, 5, start=6),
        lambda: QWEN.decode(-10, 5),
        lambda: QWEN.prompt_reads(10, 5, start=-1),
        lambda: QWEN.prompt_reads(-10, 5),
        lambda: QWEN.settle(10, 5, DENSE, 0, Steps(6)),
        lambda: QWEN.settle(10, 5, KVPolicy(12), 0, Steps(3)),
        lambda: Price(QWEN.architecture, -1.0),
        lambda: Price(QWEN.architecture, float("nan")),
    ],
)
def test_contradictory_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="got"):
        call()  # type: ignore[operator]
