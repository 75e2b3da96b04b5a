"""What an engine says of its sparse attention: the metric `kinetics_sparse_attention_info` on vLLM's `/metrics`.

Whether a layer is sparse is settled in the engine's workers, when its KV cache is made. They leave a note beside vLLM's
own sockets, and the API server's process, where metrics are served, reads it when the engine is up: `EngineInfo` is
a stat logger, vLLM's plugin point for metrics. Without a note there is no metric, which means dense.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prometheus_client import Gauge
from vllm import envs
from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import AggregateStatLoggerBase

from sparse_backend.config import KEY, from_additional_config

logger = logging.getLogger(__name__)

METRIC = "kinetics_sparse_attention_info"
DOCUMENTATION = "What sparse attention does in this engine; 1. Without it, attention is dense."
LABELS = (
    "kv_budget",
    "min_kv_budget",
    "min_context",
    "selector",
    "page_size",
    "summary_bytes",
    "sparse_layers",
    "dense_layers",
    "kv_cache_dtype",
    "device",
    "tensor_parallel",
    "version",
)
SAME_IN_ALL_STAGES = [
    name for name in LABELS if name not in ("summary_bytes", "sparse_layers", "dense_layers", "version")
]


def note(vllm_config: VllmConfig, stage: int) -> Path:
    """Where the workers of a pipeline stage leave what they do."""
    return Path(envs.VLLM_RPC_BASE_PATH) / f"sparse_attention-{vllm_config.instance_id}-{stage}.json"


def publish(vllm_config: VllmConfig, stage: int, facts: dict[str, Any]) -> None:
    """In a worker: leaves `facts` for the API server. See `merged` for what they hold."""
    path = note(vllm_config, stage)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(facts))
    fresh.replace(path)
    atexit.register(path.unlink, missing_ok=True)


def merged(stages: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Labels of the metric, from the facts of all pipeline stages: what is the same in all of them as it is;
    `sparse`, layer numbers; `dense`, layer numbers by reason; `summary_bytes`, of which the largest counts."""
    stages = list(stages)
    reasons = dict.fromkeys(reason for facts in stages for reason in facts["dense"])
    dense = {reason: [i for facts in stages for i in facts["dense"].get(reason, ())] for reason in reasons}
    return {
        **{name: str(stages[0][name]) for name in SAME_IN_ALL_STAGES},
        "summary_bytes": f"{max(facts['summary_bytes'] for facts in stages):g}",
        "sparse_layers": ranges(i for facts in stages for i in facts["sparse"]),
        "dense_layers": "; ".join(f"{reason}: {ranges(layers)}" for reason, layers in dense.items()),
        "version": installed_version(),
    }


def ranges(layers: Iterable[int]) -> str:
    """Layer numbers, neighbours as a range: 0-5,7."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def installed_version() -> str:
    try:
        return version("kinetics-serve")
    except PackageNotFoundError:
        return "unknown"


@cache
def gauge() -> Gauge:
    """Prometheus has no info metrics in multiprocess mode, with which several API servers work: a gauge that is 1, as
    vLLM's own."""
    return Gauge(METRIC, DOCUMENTATION, (*LABELS, "engine"), multiprocess_mode="mostrecent")


class EngineInfo(AggregateStatLoggerBase):
    """Entry point of group `vllm.stat_logger_plugins`: one for each process that serves `/metrics`."""

    def __init__(self, vllm_config: VllmConfig, engine_indexes: list[int]) -> None:
        self.vllm_config = vllm_config
        self.engine_indexes = engine_indexes

    def log_engine_initialized(self) -> None:
        """The engine is up: its workers have left their notes, if it is sparse."""
        if from_additional_config(self.vllm_config.additional_config) is None:
            return
        if self.vllm_config.speculative_config is not None:
            logger.warning("%s: steps that check drafts are dense, so requests are billed as dense", KEY)
            return
        stages = range(self.vllm_config.parallel_config.pipeline_parallel_size)
        try:
            facts = [json.loads(note(self.vllm_config, stage).read_text()) for stage in stages]
        except OSError as error:
            logger.warning("%s says nothing on /metrics, so its requests are billed as dense: %s", KEY, error)
            return
        for index in self.engine_indexes if any(stage["sparse"] for stage in facts) else ():
            gauge().labels(**merged(facts), engine=str(index)).set(1)

    def record(self, *_: Any, **__: Any) -> None:
        """Nothing changes while the engine runs."""

    def log(self) -> None:
        """Nothing to log."""
