"""Per-request KV budgets: `vllm_xargs: {"kv_budget": 512}`; 0 means dense.

A logits processor that leaves the logits alone is vLLM's public way to see a request's parameters beside its row in
the batch, before the attention metadata of the same step is built.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.interface import MoveDirectionality

from sparse_backend.config import SparseAttentionConfig, from_additional_config

PARAMETER = "kv_budget"

# Budgets by batch row of the engines in this process, by the identity of their configuration.
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


class RequestBudgets(LogitsProcessor):
    """Entry point of group `vllm.logits_processors`. Changes no logits."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self.config = from_additional_config(vllm_config.additional_config)
        self.rows: dict[int, int] = {}
        _rows[id(vllm_config)] = self.rows

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises VLLMValidationError, which the server answers with HTTP 400."""
        requested_budget(sampling_params)

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows requests through the rows of the batch."""
        if batch_update is None or self.config is None:
            return
        for row in batch_update.removed:
            self.rows.pop(row, None)
        for row, params, _, _ in batch_update.added:
            self.rows.pop(row, None)
            budget = requested_budget(params)
            if budget is not None:
                # Smaller budgets than the engine can serve get the smallest that it can.
                self.rows[row] = max(budget, self.config.min_budget) if budget else 0
        for source, target, direction in batch_update.moved:
            moved, displaced = self.rows.pop(source, None), self.rows.pop(target, None)
            if moved is not None:
                self.rows[target] = moved
            if displaced is not None and direction == MoveDirectionality.SWAP:
                self.rows[source] = displaced

    def is_argmax_invariant(self) -> bool:
        return True

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


def row_budgets(vllm_config: Any, config: SparseAttentionConfig, batch: int) -> torch.Tensor:
    """KV budget of every row of this step's batch, int32 [batch]; 0 is dense."""
    budgets = torch.full((batch,), config.kv_budget, dtype=torch.int32)
    for row, budget in _rows.get(id(vllm_config), {}).items():
        if row < batch:
            budgets[row] = budget
    return budgets
