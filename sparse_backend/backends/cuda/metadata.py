"""What a step's metadata tells every sparse layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparse_backend.kernels import triton as kernels


@dataclass
class SparseStep:
    """What a step's metadata carries for sparse layers, as its attribute `sparse`."""

    step: kernels.DecodeStep

    first_step: kernels.DecodeStep
    """The model's first layer has a budget of its own."""

    max_query_len: int

    any_rows: bool
    """Whether a request may be sparse in this step: if not, decode kernels are not launched."""

    dense: Any
    """Stock metadata for layers of the same KV cache group that stay dense; None where there are none."""
