"""A family of models: how its layers are put together, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from kinetics_serve.cost.families.attention import switched_on
from kinetics_serve.cost.families.config import Config, UnsupportedArchitecture
from kinetics_serve.cost.families.kinds import Kinds, full
from kinetics_serve.cost.families.parts import NOTHING, Block, Part
from kinetics_serve.cost.layers import Layers


@dataclass(frozen=True)
class Total:
    """What a model's layers, embedding and head come to."""

    parameters: int
    active: int
    looked_up: int
    layers: tuple[Layers, ...]


@dataclass(frozen=True)
class Family:
    """Layers of some kinds, each a mixer of tokens (one for all kinds, or one for each) and a feed-forward part.

    ``norms`` of hidden size a layer; a norm has ``norm_vectors`` of weights (2 for LayerNorm with its bias, 0 for one
    without weights), and so has the one before the head. ``extra`` is what else a model has; ``tables`` are embeddings
    that are only ever looked up. Without ``ties``, the head cannot be the embedding. ``ignored`` keys are known to cost
    nothing; ``repeated`` ones may only say what another key does, ``fixed`` ones what every model of the family has."""

    mixer: Block | Mapping[str, Block]
    feed: Block | None
    kinds: Kinds = full
    norms: int = 2
    norm_vectors: int = 1
    head_bias: bool | str = False
    ties: bool = True
    extra: Callable[[Config], int] = lambda config: 0
    tables: Callable[[Config], int] = lambda config: 0
    ignored: tuple[str, ...] = ()
    repeated: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)

    def total(self, config: Config) -> Total:
        config.ignore(*self.ignored)
        for key, known in self.repeated.items():
            config.agree(config.value(known), key)
        for key, only in self.fixed.items():
            config.agree(only, key)
        hidden, vocabulary = config.count("hidden_size"), config.count("vocab_size", "padded_vocab_size")
        tied = config.flag("tie_word_embeddings", "tie_embedding")
        if tied and not self.ties:
            raise config.refuse("tie_word_embeddings true")
        kinds = self.kinds(config)
        config.ignore("num_hidden_layers")
        self._know_other_kinds(config, kinds)
        body = [self._layer(config, index, kind) for index, kind in enumerate(kinds)]
        tables = self.tables(config)
        whole = self.extra(config) + tables + vocabulary * hidden * (1 if tied else 2)
        whole += self.norm_vectors * hidden + (vocabulary if switched_on(config, self.head_bias) else 0)
        return Total(
            whole + sum(part.parameters for part in body),
            whole + sum(part.active for part in body),
            tables + (0 if tied else vocabulary * hidden),
            _grouped([layer for part in body for layer in part.layers]),
        )

    def _know_other_kinds(self, config: Config, kinds: list[str]) -> None:
        """The keys of kinds that no layer is of are known too."""
        for kind, block in self.mixer.items() if isinstance(self.mixer, Mapping) else ():
            if kind not in kinds:
                with suppress(UnsupportedArchitecture):
                    block.part(config, 0, kind)

    def _layer(self, config: Config, index: int, kind: str) -> Part:
        mixer = self.mixer
        if isinstance(mixer, Mapping):
            if kind not in mixer:
                raise config.refuse(f"a layer of type {kind!r}, expected one of {', '.join(mixer)}")
            mixer = mixer[kind]
        norms = self.norms * self.norm_vectors * config.count("hidden_size")
        feed = NOTHING if self.feed is None else self.feed.part(config, index, kind)
        return Part(norms, norms) + mixer.part(config, index, kind) + feed


def _grouped(layers: list[Layers]) -> tuple[Layers, ...]:
    """Alike layers together, in order of appearance."""
    return tuple(replace(layer, count=count) for layer, count in Counter(layers).items())
