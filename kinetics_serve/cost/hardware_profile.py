"""How fast one device computes and reads: its arithmetic intensity turns bytes into eFLOPs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HardwareProfile:
    """Peak FLOPs per second and memory bytes per second of one device, and where the numbers come from."""

    name: str
    flops: float
    bytes_per_second: float
    source: str

    @property
    def intensity(self) -> float:
        """FLOPs that the device computes while it moves one byte."""
        return self.flops / self.bytes_per_second
