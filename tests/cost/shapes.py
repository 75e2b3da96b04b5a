"""Hypothesis strategies for architectures and KV policies, and the cost of a token written out plainly."""

from __future__ import annotations

from hypothesis import strategies as st

from kinetics_serve.cost import DENSE, Architecture, AttentionLayers, Cost, KVPolicy

groups = st.builds(
    AttentionLayers,
    count=st.integers(1, 4),
    query_heads=st.integers(1, 8),
    kv_heads=st.integers(1, 4),
    head_size=st.sampled_from([1, 8, 64]),
    window=st.none() | st.integers(1, 60),
)
architectures = st.builds(
    Architecture,
    name=st.just("model"),
    parameters=st.just(10_000),
    active_parameters=st.integers(1, 10_000),
    layers=st.lists(groups, min_size=1, max_size=3).map(tuple),
    kv_bytes=st.sampled_from([1, 2]),
)
sparse_policies = st.builds(
    KVPolicy,
    budget=st.integers(1, 100),
    page_size=st.integers(1, 40),
    summary_vectors=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 5.0]),
)
policies = st.just(DENSE) | sparse_policies


def naive_prefill(architecture: Architecture, prompt: int, cached: int) -> Cost:
    compute = memory = 0
    for token in range(cached + 1, prompt + 1):
        compute += 2 * architecture.active_parameters
        for group in architecture.layers:
            attended = token if group.window is None else min(token, group.window)
            compute += group.count * 4 * group.query_heads * group.head_size * attended
            memory += kv_bytes(architecture, group, 1)
    for group in architecture.layers:
        memory += kv_bytes(architecture, group, cached if group.window is None else min(cached, group.window))
    return Cost(compute, memory)


def naive_token(architecture: Architecture, prompt: int, t: int, kv: KVPolicy) -> Cost:
    """Cost of generated token number ``t``."""
    compute, memory = 2 * architecture.active_parameters, 0
    for group in architecture.layers:
        attended = prompt + t
        if group.window is not None:
            attended = min(attended, group.window)
        elif kv.budget is not None and attended > kv.budget:
            pages, elements = attended // kv.page_size, kv.summary_vectors * group.head_size
            compute += group.count * group.query_heads * pages * round(2 * elements)
            memory += group.count * group.kv_heads * pages * round(elements * architecture.kv_bytes)
            attended = kv.budget
        compute += group.count * 4 * group.query_heads * group.head_size * attended
        memory += kv_bytes(architecture, group, attended)
    return Cost(compute, memory)


def naive_prompt_read(architecture: Architecture, prompt: int, t: int) -> Cost:
    """Bytes of the prompt that step ``t`` reads: its tokens among the last ``window`` of prompt + t."""
    memory = 0
    for group in architecture.layers:
        window = prompt + t if group.window is None else group.window
        first = max(prompt + t - window + 1, 1)
        memory += kv_bytes(architecture, group, len(range(first, prompt + 1)))
    return Cost(0, memory)


def kv_bytes(architecture: Architecture, group: AttentionLayers, tokens: int) -> int:
    return group.count * 2 * group.kv_heads * group.head_size * architecture.kv_bytes * tokens
