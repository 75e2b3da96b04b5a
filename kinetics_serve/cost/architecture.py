"""What a model's shape says about its cost: parameters, groups of layers, bytes of KV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kinetics_serve.cost.hardware_profile import GemmDtype
from kinetics_serve.cost.layers import AttentionLayers, Layers, layers_of


@dataclass(frozen=True)
class Architecture:
    """The part of a model that its cost depends on.

    ``parameters`` counts unique weights (a tied embedding once); ``active_parameters`` leaves out the
    experts that a token is not routed to, and equals ``parameters`` for a dense model. Of those,
    ``looked_up_embedding`` are rows of a table that a token looks one up in, and are not multiplied: an embedding that
    is not the output head too. ``kv_bytes`` is the bytes of one element of the KV cache: 2 for bf16, 1 for fp8.
    ``max_context`` is in tokens. ``gemm_dtype`` is what most weights are multiplied in.
    """

    name: str
    parameters: int
    active_parameters: int
    layers: tuple[Layers, ...]
    kv_bytes: int = 2
    max_context: int | None = None
    looked_up_embedding: int = 0
    gemm_dtype: GemmDtype = "bf16"

    def __post_init__(self) -> None:
        if not 0 < self.active_parameters <= self.parameters:
            raise ValueError(
                f"{self.name}: active parameters must be between 1 and all {self.parameters}, "
                f"got {self.active_parameters}"
            )
        if not 0 <= self.looked_up_embedding < self.active_parameters:
            raise ValueError(
                f"{self.name}: a looked-up embedding must be a part of the {self.active_parameters} active parameters, "
                f"got {self.looked_up_embedding}"
            )
        if not self.layers:
            raise ValueError(f"{self.name}: an architecture needs at least one group of layers")
        if self.kv_bytes < 1:
            raise ValueError(f"{self.name}: kv_bytes must be at least 1, got {self.kv_bytes}")

    @property
    def multiplied_parameters(self) -> int:
        """Weights that a token is multiplied by, each at 2 FLOPs."""
        return self.active_parameters - self.looked_up_embedding

    @property
    def kv_token_bytes(self) -> int:
        """Bytes that one more token adds to the KV cache, while no window is full."""
        return sum(group.stored_bytes(self.kv_bytes) for group in self.layers)

    def on_devices(self, devices: int) -> Architecture:
        """As tensor parallelism splits it over ``devices``, each of which keeps at least one KV head of every layer."""
        groups = (
            replace(group, kv_heads=max(group.kv_heads, devices)) if isinstance(group, AttentionLayers) else group
            for group in self.layers
        )
        return replace(self, layers=tuple(groups))

    def with_sparse_layers(self, count: int) -> Architecture:
        """As an engine runs it that can make ``count`` of its layers sparse; the others of full attention stay dense.

        Where those have several shapes, the ones that read least count as sparse, so that no bill is too small.
        """
        groups: list[Layers] = []
        for group in sorted(self.layers, key=lambda group: group.read_bytes(self.kv_bytes) / group.count):
            if not (isinstance(group, AttentionLayers) and group.selectable):
                groups.append(group)
                continue
            sparse = min(group.count, count)
            count -= sparse
            if sparse:
                groups.append(replace(group, count=sparse))
            if sparse < group.count:
                groups.append(replace(group, count=group.count - sparse, dense=True))
        return replace(self, layers=tuple(groups))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Architecture:
        """The architecture that ``dataclasses.asdict`` took apart, by this version or an earlier one. Raises KeyError,
        TypeError, ValueError."""
        return cls(**{**content, "layers": tuple(layers_of(group) for group in content["layers"])})
