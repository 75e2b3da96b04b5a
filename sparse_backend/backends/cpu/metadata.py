"""What a step's metadata tells every layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadata

from sparse_backend.kernels import DecodeBatch


@dataclass
class SparseCPUMetadata(CPUAttentionMetadata):
    """The stock metadata, in which sparse requests have one token of context, and what the sparse kernels need."""

    batch: DecodeBatch | None = None

    first_batch: DecodeBatch | None = None
    """The model's first layer has a budget of its own."""

    all_sparse: bool = False

    requests: torch.Tensor | None = None
    """int32 [batch] 0, 1, 2, ..."""

    starts: torch.Tensor | None = None
    """int32 [batch] tokens each request had before this step."""

    dense: CPUAttentionMetadata | None = None
    """For layers of the same KV cache group that stay dense, where it differs."""
