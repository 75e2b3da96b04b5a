"""What a model's shape says about its cost: parameters, attention layers, bytes of KV."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinetics_serve.cost.model_config import attention_layers, text_config
from kinetics_serve.cost.model_config import max_context as config_max_context
from kinetics_serve.cost.parameters import inactive_expert_parameters, unique_parameters


@dataclass(frozen=True)
class AttentionLayers:
    """A group of alike attention layers.

    ``count`` layers of ``query_heads`` query heads and ``kv_heads`` KV heads of ``head_size`` elements each;
    ``window`` is the sliding window in tokens (the token itself included), or None for full attention.
    """

    count: int
    query_heads: int
    kv_heads: int
    head_size: int
    window: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.count, self.query_heads, self.kv_heads, self.head_size)
        if min(sizes) < 1 or (self.window is not None and self.window < 1):
            raise ValueError(f"every size of a group of attention layers must be at least 1, got {self}")


@dataclass(frozen=True)
class Architecture:
    """The part of a model that its cost depends on.

    ``parameters`` counts unique weights (a tied embedding once); ``active_parameters`` leaves out the
    experts that a token is not routed to, and equals ``parameters`` for a dense model. ``kv_bytes`` is the
    bytes of one element of the KV cache: 2 for bf16, 1 for fp8. ``max_context`` is in tokens.
    """

    name: str
    parameters: int
    active_parameters: int
    layers: tuple[AttentionLayers, ...]
    kv_bytes: int = 2
    max_context: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.active_parameters <= self.parameters:
            raise ValueError(
                f"{self.name}: active parameters must be between 1 and all {self.parameters}, "
                f"got {self.active_parameters}"
            )
        if not self.layers:
            raise ValueError(f"{self.name}: an architecture needs at least one group of attention layers")
        if self.kv_bytes < 1:
            raise ValueError(f"{self.name}: kv_bytes must be at least 1, got {self.kv_bytes}")

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], name: str, parameters: int | None = None, kv_bytes: int = 2
    ) -> Architecture:
        """The architecture that a Hugging Face ``config.json`` describes.

        Understands Llama and the models that share its keys: Mistral, Mixtral, Qwen2, Qwen3 (MoE too), Gemma
        2 and 3, Phi-3. ``parameters``, where known, is the number of unique weights; otherwise it is
        computed from the shapes. Raises ``UnsupportedArchitecture`` (a ValueError) for a model whose KV
        cache or weights it cannot count.
        """
        text = text_config(config, name)
        total = unique_parameters(text) if parameters is None else parameters
        return cls(
            name=name,
            parameters=total,
            active_parameters=total - inactive_expert_parameters(text),
            layers=tuple(AttentionLayers(*group) for group in attention_layers(text, name)),
            kv_bytes=kv_bytes,
            max_context=config_max_context(text),
        )
