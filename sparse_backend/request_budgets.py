"""Per-request KV budgets: `vllm_xargs: {"kv_budget": 512}`; 0 means dense.

A logits processor that leaves the logits alone is vLLM's public way to see a request's parameters beside its place in
the batch, before the attention metadata of the same step is built. vLLM has two model runners, each with an interface
of its own for logits processors and the same entry point for both: this class is one of either kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotLogitsProcessor

from sparse_backend.backends.engine import Engine, engine_of
from sparse_backend.config import SparseAttentionConfig
from sparse_backend.constants import MAX_TOKENS

PARAMETER = "kv_budget"


def requested_budget(params: SamplingParams) -> int | None:
    """The budget a request asks for, or None. Raises VLLMValidationError."""
    budget = (params.extra_args or {}).get(PARAMETER)
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 0):
        raise VLLMValidationError(
            f"{PARAMETER} is {budget!r}: give a whole number of tokens, or 0 for dense attention.",
            parameter=PARAMETER,
            value=budget,
        )
    return budget


class RequestBudgets(LogitsProcessor, SlotLogitsProcessor):
    """Entry point of group `vllm.logits_processors`. Changes no logits."""

    def __init__(self, vllm_config: VllmConfig, *_: Any) -> None:
        engine = engine_of(vllm_config)
        self.config = engine.config if engine else None
        self.budgets: dict[int, int] = {}
        if engine:  # of several, as where two installations have the entry point, each follows the batch by itself
            engine.budgets = self.budgets

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises VLLMValidationError, which the server answers with HTTP 400."""
        requested_budget(sampling_params)

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """First model runner: follows requests through their places in the batch."""
        if batch_update is None or self.config is None:
            return
        for place in batch_update.removed:
            self.budgets.pop(place, None)
        for place, params, _, _ in batch_update.added:
            self.add_request(place, params)
        for source, target, direction in batch_update.moved:
            moved, displaced = self.budgets.pop(source, None), self.budgets.pop(target, None)
            if moved is not None:
                self.budgets[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                self.budgets[source] = displaced

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Second model runner: a request enters the batch and keeps its slot until it leaves."""
        self.budgets.pop(req_idx, None)
        budget = requested_budget(sampling_params)
        if budget is not None and self.config is not None:
            # Budgets that the engine can't serve get the nearest that it can.
            self.budgets[req_idx] = min(max(budget, self.config.min_budget), MAX_TOKENS) if budget else 0
        return False

    def is_argmax_invariant(self) -> bool:
        return True

    def apply(self, logits: torch.Tensor, *_: Any) -> torch.Tensor:
        return logits


def step_budgets(engine: Engine, common: CommonAttentionMetadata) -> torch.Tensor:
    """KV budget of every request of a step, int32 [batch]; 0 is dense."""
    # With the second model runner budgets are kept by slot, and a draft model's steps don't say whose slots they have.
    unknown = engine.vllm_config.use_v2_model_runner and common.req_idx is None
    given = {} if unknown else engine.budgets
    return batch_budgets(given, engine.config, common.num_reqs, common.req_idx, common.is_prefilling)


def batch_budgets(
    given: Mapping[int, int],
    config: SparseAttentionConfig,
    batch: int,
    slots: Iterable[Any] | None = None,
    prefilling: torch.Tensor | None = None,
) -> torch.Tensor:
    """KV budget of every request of this step's batch, int32 [batch]; 0 is dense.

    given: budgets of those that ask for one, `Engine.budgets`; slots: the request slot of each place in the batch, with
    the second model runner; places beyond are padding; prefilling: bool [up to batch], which requests are in their
    prompt: prefill is dense, chunks of a single token too.
    """
    budgets = torch.full((batch,), config.kv_budget, dtype=torch.int32)
    if given and slots is not None:
        given = {place: given[int(slot)] for place, slot in enumerate(slots) if int(slot) in given}
    for place, budget in given.items():
        if place < batch:
            budgets[place] = budget
    if prefilling is not None:
        budgets[: len(prefilling)].masked_fill_(prefilling[:batch], 0)
    return budgets
