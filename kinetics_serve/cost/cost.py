"""What work costs: FLOPs computed and bytes moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of KV traffic. Whole numbers stay Python ints, so sums of them are exact."""

    compute_flops: float = 0
    memory_bytes: float = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.compute_flops + other.compute_flops, self.memory_bytes + other.memory_bytes)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.compute_flops - other.compute_flops, self.memory_bytes - other.memory_bytes)

    def eflops(self, intensity: float) -> float:
        """eFLOPs: FLOPs plus bytes × ``intensity`` FLOPs per byte (Kinetics, arXiv 2506.05333)."""
        return self.compute_flops + self.memory_bytes * intensity


ZERO = Cost()
