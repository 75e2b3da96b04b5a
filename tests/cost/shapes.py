"""Hypothesis strategies for architectures and KV policies, and the cost of a token written out plainly."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from kinetics_serve.cost import (
    DENSE,
    Architecture,
    AttentionLayers,
    Cost,
    IndexLayers,
    KVPolicy,
    LatentLayers,
    StateLayers,
)
from kinetics_serve.cost.layers import Layers

counts, heads, sizes = st.integers(1, 4), st.integers(1, 8), st.sampled_from([1, 8, 64])
attention = st.builds(
    lambda limit, tokens, **sizes: AttentionLayers(**sizes, **({} if limit is None else {limit: tokens})),
    limit=st.sampled_from([None, "window", "chunk", "best"]),
    tokens=st.integers(1, 60),
    count=counts,
    query_heads=heads,
    kv_heads=st.integers(1, 4),
    head_size=sizes,
    value_size=st.none() | sizes,
    stores=st.booleans(),
)
latent = st.builds(LatentLayers, counts, heads, sizes, st.integers(0, 8), sizes, sizes, st.none() | st.integers(1, 60))
index = st.builds(IndexLayers, counts, heads, sizes, st.integers(1, 200))
states = st.builds(
    StateLayers, counts, st.integers(0, 99), st.sampled_from([2, 4]), st.integers(0, 9), st.integers(1, 999)
)
architectures = st.builds(
    Architecture,
    name=st.just("model"),
    parameters=st.just(10_000),
    active_parameters=st.integers(1_000, 10_000),
    layers=st.lists(attention | latent | index | states, min_size=1, max_size=4).map(tuple),
    kv_bytes=st.sampled_from([1, 2]),
    looked_up_embedding=st.integers(0, 999),
)
sparse_policies = st.builds(
    KVPolicy,
    budget=st.integers(1, 100),
    page_size=st.integers(1, 40),
    summary_vectors=st.sampled_from([0.0, 0.3, 0.5, 1.0, 2.0, 5.0]),
)
policies = st.just(DENSE) | sparse_policies


def attended(group: Layers, context: int) -> int:
    """Tokens of a context that one of its layers attends to, without a KV budget."""
    if isinstance(group, AttentionLayers) and group.chunk is not None:
        return len([token for token in range(context) if token // group.chunk == (context - 1) // group.chunk])
    if isinstance(group, AttentionLayers) and group.window is not None:
        return min(context, group.window)
    best = group.best if isinstance(group, AttentionLayers | LatentLayers) else None
    return context if best is None else min(context, best)


def flops(group: Layers, prefill: bool = False) -> int:
    """Of one attended token."""
    if isinstance(group, AttentionLayers):
        value = group.head_size if group.value_size is None else group.value_size
        return group.count * group.query_heads * 2 * (group.head_size + value)
    if isinstance(group, LatentLayers):
        expanded = group.nope_size + group.rope_size + group.value_size
        absorbed = 2 * group.latent_size + group.rope_size
        return group.count * group.query_heads * 2 * (expanded if prefill and group.best is None else absorbed)
    return group.count * 2 * group.heads * group.head_size if isinstance(group, IndexLayers) else 0


def token_bytes(architecture: Architecture, group: Layers) -> int:
    """Of one attended token."""
    if isinstance(group, AttentionLayers):
        value = group.head_size if group.value_size is None else group.value_size
        return group.count * group.kv_heads * (group.head_size + value) * architecture.kv_bytes
    if isinstance(group, LatentLayers):
        if group.best is not None and architecture.kv_bytes == 1:
            return group.count * (group.latent_size + 4 * math.ceil(group.latent_size / 128) + 2 * group.rope_size)
        return group.count * (group.latent_size + group.rope_size) * architecture.kv_bytes
    return group.count * group.token_bytes if isinstance(group, IndexLayers) else 0


def state(group: Layers) -> Cost:
    """Of one step."""
    if not isinstance(group, StateLayers):
        return Cost()
    moved = 2 * (group.state_elements * group.element_bytes + group.conv_elements * 2)
    return Cost(group.count * group.layer_flops, group.count * moved)


def naive_prefill(architecture: Architecture, prompt: int, cached: int) -> Cost:
    compute, memory = 0.0, 0.0
    for token in range(cached + 1, prompt + 1):
        compute += 2 * (architecture.active_parameters - architecture.looked_up_embedding)
        for group in architecture.layers:
            compute += flops(group, prefill=True) * attended(group, token) + state(group).compute_flops
            stores = group.stores if isinstance(group, AttentionLayers) else True
            memory += token_bytes(architecture, group) if stores else 0
    for group in architecture.layers:
        kept = cached
        if isinstance(group, AttentionLayers) and group.window is not None:
            kept = min(cached, group.window)
        elif isinstance(group, AttentionLayers) and group.chunk is not None:
            kept = cached % group.chunk
        memory += token_bytes(architecture, group) * kept + (state(group).memory_bytes if prompt else 0)
    return Cost(compute, memory)


def naive_token(architecture: Architecture, prompt: int, t: int, kv: KVPolicy) -> Cost:
    """Cost of generated token number ``t``."""
    compute = 2.0 * (architecture.active_parameters - architecture.looked_up_embedding)
    memory = 0.0
    for group in architecture.layers:
        tokens = attended(group, prompt + t)
        full = isinstance(group, AttentionLayers) and group.window is group.chunk is group.best is None
        if isinstance(group, AttentionLayers) and full and kv.budget is not None and tokens > kv.budget:
            pages, elements = tokens // kv.page_size, kv.summary_vectors * group.head_size
            compute += group.count * group.query_heads * pages * round(2 * elements)
            memory += group.count * group.kv_heads * pages * round(elements * architecture.kv_bytes)
            tokens = kv.budget
        compute += flops(group) * tokens + state(group).compute_flops
        memory += token_bytes(architecture, group) * tokens + state(group).memory_bytes
    return Cost(compute, memory)


def naive_prompt_read(architecture: Architecture, prompt: int, t: int, kv: KVPolicy = DENSE) -> Cost:
    """Bytes of the prompt that step ``t`` reads together with others: those of its attended tokens that are the
    prompt's; where it chose its own, the summaries that it chose by, and nothing where an indexer chose."""
    memory, context = 0, prompt + t
    for group in architecture.layers:
        tokens = attended(group, context)
        best = group.best if isinstance(group, AttentionLayers | LatentLayers) else None
        full = isinstance(group, AttentionLayers) and group.window is group.chunk is group.best is None
        if isinstance(group, AttentionLayers) and full and kv.budget is not None and context > kv.budget:
            page_bytes = round(kv.summary_vectors * group.head_size * architecture.kv_bytes)
            memory += group.count * group.kv_heads * (prompt // kv.page_size) * page_bytes
        elif best is None or context <= best:
            memory += token_bytes(architecture, group) * max(prompt - (context - tokens), 0)
    return Cost(0, memory)
