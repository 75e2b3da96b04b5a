"""A model that a server lists, with what its samples cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from kinetics_serve.cost import (
    DENSE,
    Architecture,
    HardwareProfile,
    KVPolicy,
    Price,
    UnsupportedArchitecture,
    load_architecture,
)
from kinetics_serve.engine.info import EngineInfo
from kinetics_serve.engine.upstream import ModelCard


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that an upstream serves."""

    card: ModelCard
    price: Price | None
    """None where its architecture is unknown."""
    kv: KVPolicy = DENSE
    """How the engine attends unless a request says otherwise."""
    info: EngineInfo = field(default_factory=EngineInfo)
    problem: str | None = None
    """Why it has no price."""

    @property
    def name(self) -> str:
        return self.card.name


class Prices:
    """What the servers' models cost on their hardware. architectures, kv_element_bytes: see Pool."""

    def __init__(
        self, hardware: HardwareProfile, architectures: Mapping[str | None, str], kv_element_bytes: int | None
    ) -> None:
        self._hardware = hardware
        self._architectures = architectures
        self._kv_element_bytes = kv_element_bytes
        self._known: dict[str, Architecture | UnsupportedArchitecture] = {}

    def served(self, card: ModelCard, info: EngineInfo) -> ServedModel:
        """The model with its price, or with the reason why it has none."""
        try:
            architecture = info.architecture(self._checkpoint(card))
        except (UnsupportedArchitecture, OSError, ValueError) as error:
            return ServedModel(card, None, info.kv_policy(None), info, str(error))
        return ServedModel(card, Price.on(architecture, self._hardware), info.kv_policy(architecture), info)

    def _checkpoint(self, card: ModelCard) -> Architecture:
        """By the model's config.json: from disk, or from the Hugging Face hub.

        Raises UnsupportedArchitecture, OSError, ValueError.
        """
        root = self._architectures.get(card.name) or self._architectures.get(None) or card.root
        if root not in self._known:
            try:
                self._known[root] = load_architecture(root)
            except UnsupportedArchitecture as error:
                self._known[root] = error
        known = self._known[root]
        if isinstance(known, UnsupportedArchitecture):
            raise known.with_traceback(None)
        return known if self._kv_element_bytes is None else replace(known, kv_bytes=self._kv_element_bytes)
