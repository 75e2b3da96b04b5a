"""What the front-end knows of an engine's sparse attention: its budget, its bill, how a request asks for another.

The engine's side is the vLLM plugin `sparse_backend`; the two meet in vLLM's `additional_config` at the start and in
`vllm_xargs.kv_budget` per request, and nowhere else.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from kinetics_serve.cost import DENSE, KVPolicy

KVBudget = int | Literal["auto", "dense"]

MIN_KV_BUDGET = 112
"""The least that the plugin's sink, local window and one page fit in; it raises smaller budgets to that."""

PAGE_SIZE = 16
"""Tokens that the plugin's default selector chooses together."""

SUMMARY_VECTORS = 1.35
"""What its page summaries cost to read, in KV vectors a page: 4.2 % of the dense bytes at head size 64, less above."""


def kv_policy(kv_budget: int | None) -> KVPolicy:
    """How an engine of that KV budget is billed; None is dense."""
    return DENSE if kv_budget is None else KVPolicy(kv_budget, PAGE_SIZE, SUMMARY_VECTORS)


def requested(kv_budget: KVBudget, engine: KVPolicy) -> KVPolicy:
    """The policy of a request, on an engine whose own is `engine`, which must be sparse for a budget in tokens."""
    if kv_budget == "auto":
        return engine
    if kv_budget == "dense":
        return DENSE
    return replace(engine, budget=kv_budget)


def engine_args(kv_budget: int) -> tuple[str, ...]:
    """vLLM's arguments that switch the plugin on."""
    return ("--additional-config", json.dumps({"sparse_attention": {"kv_budget": kv_budget}}))


def request_fields(body: Mapping[str, Any], kv: KVPolicy, engine: KVPolicy) -> dict[str, Any]:
    """The fields that make vLLM run a request under `kv`; none where that is what the engine does anyway."""
    if kv == engine:
        return {}
    return {"vllm_xargs": {**(body.get("vllm_xargs") or {}), "kv_budget": kv.budget or 0}}
