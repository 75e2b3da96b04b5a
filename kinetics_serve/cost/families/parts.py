"""What layers are built of: each part has parameters, and some have a kind of layer that samples pay for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.layers import Layers


@dataclass(frozen=True)
class Part:
    """Weights of one layer, those of them that one token is multiplied by, and one layer of each kind that it holds."""

    parameters: int
    active: int
    layers: tuple[Layers, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part(self.parameters + other.parameters, self.active + other.active, self.layers + other.layers)


class Block(Protocol):
    """A part of a layer, such as its attention or its MLP, as a family builds it."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        """That of layer number ``index``, which is of ``kind``."""


def dense(parameters: int, *layers: Layers) -> Part:
    """A part that every token uses whole."""
    return Part(parameters, parameters, layers)


NOTHING = dense(0)
