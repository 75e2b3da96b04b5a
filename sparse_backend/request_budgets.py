"""Per-request KV budgets: `vllm_xargs: {"kv_budget": 512}`; 0 means dense.

A logits processor that leaves the logits alone is vLLM's public way to see a request's parameters beside its row in
the batch, before the attention metadata of the same step is built. vLLM has two model runners, each with an interface
of its own for logits processors and the same entry point for both: this class is one of either kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as SlotLogitsProcessor

from sparse_backend.config import SparseAttentionConfig, from_additional_config

PARAMETER = "kv_budget"

# Budgets of the engines in this process, by the identity of their configuration: by batch row with vLLM's first
# model runner, by request slot with its second one.
_rows: dict[int, dict[int, int]] = {}


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
        self.config = from_additional_config(vllm_config.additional_config)
        self.rows: dict[int, int] = {}
        _rows[id(vllm_config)] = self.rows

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises VLLMValidationError, which the server answers with HTTP 400."""
        requested_budget(sampling_params)

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """First model runner: follows requests through the rows of the batch."""
        if batch_update is None or self.config is None:
            return
        for row in batch_update.removed:
            self.rows.pop(row, None)
        for row, params, _, _ in batch_update.added:
            self.add_request(row, params)
        for source, target, direction in batch_update.moved:
            moved, displaced = self.rows.pop(source, None), self.rows.pop(target, None)
            if moved is not None:
                self.rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                self.rows[source] = displaced

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Second model runner: a request enters the batch and keeps its slot until it leaves."""
        self.rows.pop(req_idx, None)
        budget = requested_budget(sampling_params)
        if budget is not None and self.config is not None:
            # Smaller budgets than the engine can serve get the smallest that it can.
            self.rows[req_idx] = max(budget, self.config.min_budget) if budget else 0
        return False

    def is_argmax_invariant(self) -> bool:
        return True

    def apply(self, logits: torch.Tensor, *_: Any) -> torch.Tensor:
        return logits


def row_budgets(
    vllm_config: Any, config: SparseAttentionConfig, batch: int, slots: Iterable[Any] | None = None
) -> torch.Tensor:
    """KV budget of every row of this step's batch, int32 [batch]; 0 is dense.

    slots: the request slot of each row, with the second model runner; rows beyond are padding.
    """
    budgets = torch.full((batch,), config.kv_budget, dtype=torch.int32)
    given = _rows.get(id(vllm_config), {})
    if given and slots is not None:
        given = {row: given[int(slot)] for row, slot in enumerate(slots) if int(slot) in given}
    for row, budget in given.items():
        if row < batch:
            budgets[row] = budget
    return budgets
