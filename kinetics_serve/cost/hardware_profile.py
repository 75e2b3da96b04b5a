"""How fast one device computes and reads: its arithmetic intensity turns bytes into eFLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS_PER_HOUR = 3600

GemmDtype = Literal["bf16", "fp8", "fp4"]


@dataclass(frozen=True)
class HardwareProfile:
    """Peak FLOPs per second and memory bytes per second of one device, and where the numbers come from.

    ``flops`` are dense bf16; ``fp8`` and ``fp4`` dense ones of those, where the device has them. ``dollars_per_hour``
    is what one device costs, where somebody said so.
    """

    name: str
    flops: float
    bytes_per_second: float
    source: str
    fp8: float | None = None
    fp4: float | None = None
    dollars_per_hour: float | None = None

    def __post_init__(self) -> None:
        rates = [self.flops, self.bytes_per_second, *(rate for rate in (self.fp8, self.fp4) if rate is not None)]
        if not all(0 < rate < float("inf") for rate in rates):
            raise ValueError(f"hardware {self.name!r}: rates must be finite and above 0, got {rates}")

    @property
    def intensity(self) -> float:
        """FLOPs that the device computes in bf16 while it moves one byte."""
        return self.flops / self.bytes_per_second

    def intensity_in(self, dtype: GemmDtype) -> float:
        """The same in another dtype; where the device lacks it, weights are multiplied in the next wider."""
        rates = {"bf16": self.flops, "fp8": self.fp8 or self.flops, "fp4": self.fp4 or self.fp8 or self.flops}
        return rates[dtype] / self.bytes_per_second

    def dollars_per_eflop(self, dtype: GemmDtype) -> float | None:
        """The least that an eFLOP costs: at the device's full rates. None where an hour's price isn't known."""
        if self.dollars_per_hour is None:
            return None
        return self.dollars_per_hour / SECONDS_PER_HOUR / (self.intensity_in(dtype) * self.bytes_per_second)
