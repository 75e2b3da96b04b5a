"""Feed-forward parts: MLPs, and mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kinetics_serve.cost.families.attention import switched_on
from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.families.parts import Part, dense

GATED = ("silu", "swish", "gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "swiglu", "relu")

IsMixture = Callable[[Config, int], bool]


@dataclass(frozen=True)
class Mlp:
    """Three matrices (gated) or two, of the width that a key tells, with biases where ``bias`` says so."""

    width: tuple[str, ...] = ("intermediate_size",)
    matrices: int = 3
    bias: bool | str = False
    extra: int = 0

    def part(self, config: Config, index: int, kind: str) -> Part:
        return dense(self.parameters(config, config.of_layer(index, *self.width)))

    def parameters(self, config: Config, width: int, hidden: int | None = None) -> int:
        hidden = config.count("hidden_size") if hidden is None else hidden
        biases = (self.matrices - 1) * width + hidden if switched_on(config, self.bias) else 0
        return self.matrices * hidden * width + biases + self.extra


@dataclass(frozen=True)
class Mixture:
    """Routed experts, shared ones, and a router; ``dense`` stands in layers that are no mixture.

    The fields of strings hold the names that families use for one thing. ``shared_width`` is the width of all shared
    experts together; where it isn't told, ``shared`` of ``width``. ``correction`` is a number a expert that balances
    their load. Without experts every layer is ``dense``, where that is ``optional``."""

    experts: tuple[str, ...] = ("num_experts", "num_local_experts", "n_routed_experts")
    routed: tuple[str, ...] = ("num_experts_per_tok",)
    width: tuple[str, ...] = ("moe_intermediate_size",)
    shared: tuple[str, ...] = ()
    shared_width: tuple[str, ...] = ()
    shared_gate: bool = False
    router_bias: bool | str = False
    correction: bool = False
    optional: bool = False
    expert: Mlp = Mlp()
    dense: Mlp = Mlp()
    mixture: IsMixture = lambda config, index: True

    def part(self, config: Config, index: int, kind: str) -> Part:
        experts = config.whole(*self.experts, default=0) if self.optional else config.count(*self.experts)
        if not experts:
            config.ignore(*self.routed, *self.width, *self.shared, *self.shared_width)
        if not experts or not self.mixture(config, index):
            return self.dense.part(config, index, kind)
        routed = config.count_of_layer(index, *self.routed)
        if routed > experts:
            raise config.refuse(f"{self.routed[0]} {routed} of {experts} experts")
        hidden, width = config.count("hidden_size"), config.count_of_layer(index, *self.width)
        if self.dense.width != self.width:
            config.ignore(*self.dense.width)
        expert = self.expert.parameters(config, width)
        always = hidden * experts + experts * (switched_on(config, self.router_bias) + self.correction)
        always += self._shared(config, width)
        return Part(experts * expert + always, routed * expert + always)

    def _shared(self, config: Config, width: int) -> int:
        """Weights of the shared experts, and of the gate that some have."""
        if not (self.shared or self.shared_width):
            return 0
        together = config.whole(*self.shared_width, default=0) if self.shared_width else None
        number = config.whole(*self.shared, default=0 if together is None else 1) if self.shared else 1
        if together is not None and number > 1:
            raise config.refuse(f"{self.shared[0]} {number} beside {self.shared_width[0]}")
        total = number * (width if together is None else together)
        gate = config.count("hidden_size") if self.shared_gate and total else 0
        return self.expert.parameters(config, total) + gate if total else 0


def first_dense(*keys: str, default: int = 0) -> IsMixture:
    """The first layers, as many as a key tells, are dense."""
    return lambda config, index: index >= config.whole(*keys, default=default)


def listed_or(key: str, otherwise: IsMixture, mixed: object = "sparse", plain: object = "dense") -> IsMixture:
    """A list that tells each layer decides where there is one."""

    def decide(config: Config, index: int) -> bool:
        kinds = config.listed(key, length=config.layers)
        if kinds is None:
            return otherwise(config, index)
        if kinds[index] not in (mixed, plain) or isinstance(kinds[index], bool):
            raise config.refuse(f"{kinds[index]!r} in {key}")
        otherwise(config, index)  # its keys are known too
        return bool(kinds[index] == mixed)

    return decide


def qwen_mixture(config: Config, index: int) -> bool:
    """Every ``decoder_sparse_step``-th layer, less those of ``mlp_only_layers``."""
    dense_layers = config.listed("mlp_only_layers") or ()
    return (index + 1) % config.count("decoder_sparse_step", default=1) == 0 and index not in dense_layers
