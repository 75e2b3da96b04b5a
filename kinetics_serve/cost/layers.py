"""The kinds of layers that a model's samples pay for, beside its parameters.

Each kind tells, for one token and all layers of the group: FLOPs and bytes for every token attended to (in decode and
in prefill), bytes for every token stored, and the FLOPs and bytes of a state of fixed size, which every step reads and
writes. ``kv_bytes`` is the bytes of one element of the KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from kinetics_serve.cost.spans import Best, Chunk, Span, Whole, Window

SCALED_ELEMENTS = 128  # elements of a latent or of an index key that share one fp32 scale in vLLM's fp8 caches


@dataclass(frozen=True)
class AttentionLayers:
    """A group of alike attention layers.

    ``count`` layers of ``query_heads`` query heads and ``kv_heads`` KV heads, with keys of ``head_size`` elements and
    values of ``value_size`` (as many, unless given). In tokens, at most one of: ``window``, a sliding window (the token
    itself included); ``chunk``, attention within chunks; ``best``, what an indexer (see ``IndexLayers``) selects. None
    of them is full attention. ``stores`` is False for layers that read the KV of earlier ones. ``dense`` layers have
    full attention and keep it under a KV budget, because the engine can't make them sparse.
    """

    count: int
    query_heads: int
    kv_heads: int
    head_size: int
    window: int | None = None
    chunk: int | None = None
    best: int | None = None
    value_size: int | None = None
    stores: bool = True
    dense: bool = False
    kind: Literal["attention"] = "attention"

    state_flops: ClassVar[int] = 0
    state_bytes: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_sizes(self)
        if sum(limit is not None for limit in (self.window, self.chunk, self.best)) > 1:
            raise ValueError(f"a layer has a window, a chunk or a selection, not two of them: {self}")

    @property
    def span(self) -> Span:
        if self.window is not None:
            return Window(self.window)
        if self.chunk is not None:
            return Chunk(self.chunk)
        return Whole() if self.best is None else Best(self.best)

    @property
    def selectable(self) -> bool:
        """Whether a KV budget applies: to full attention only."""
        return isinstance(self.span, Whole) and not self.dense

    @property
    def flops(self) -> int:
        return 2 * self.count * self.query_heads * self._elements

    @property
    def prefill_flops(self) -> int:
        return self.flops

    def read_bytes(self, kv_bytes: int) -> int:
        return self.count * self.kv_heads * self._elements * kv_bytes

    def stored_bytes(self, kv_bytes: int) -> int:
        return self.read_bytes(kv_bytes) if self.stores else 0

    @property
    def _elements(self) -> int:
        return self.head_size + (self.head_size if self.value_size is None else self.value_size)


@dataclass(frozen=True)
class LatentLayers:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), as vLLM runs it.

    Decoding, queries and outputs are taken into the latent space (the matrices that do so are parameters), where all
    heads share one key of ``latent_size`` + ``rope_size`` elements whose first ``latent_size`` are the value. Prefill
    expands the latents into heads of ``nope_size`` + ``rope_size`` and ``value_size`` elements, unless ``best`` tokens
    are selected for every token.
    """

    count: int
    query_heads: int
    latent_size: int
    rope_size: int
    nope_size: int
    value_size: int
    best: int | None = None
    kind: Literal["latent"] = "latent"

    state_flops: ClassVar[int] = 0
    state_bytes: ClassVar[int] = 0
    selectable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_sizes(self, zero=("rope_size",))

    @property
    def span(self) -> Span:
        return Whole() if self.best is None else Best(self.best)

    @property
    def flops(self) -> int:
        return 2 * self.count * self.query_heads * (2 * self.latent_size + self.rope_size)

    @property
    def prefill_flops(self) -> int:
        if self.best is not None:
            return self.flops
        return 2 * self.count * self.query_heads * (self.nope_size + self.rope_size + self.value_size)

    def read_bytes(self, kv_bytes: int) -> int:
        # vLLM's fp8_ds_mla: fp8 latents with fp32 scales, and 16-bit rope. FlashInfer's backend keeps plain fp8, but
        # only an engine's workers learn which it is: its metrics say fp8 of both, so the dearer is charged.
        if self.best is not None and kv_bytes == 1:
            return self.count * (self.latent_size + 4 * -(-self.latent_size // SCALED_ELEMENTS) + 2 * self.rope_size)
        return self.count * (self.latent_size + self.rope_size) * kv_bytes

    def stored_bytes(self, kv_bytes: int) -> int:
        return self.read_bytes(kv_bytes)


@dataclass(frozen=True)
class IndexLayers:
    """What scores every token of the context, so that other layers attend to the best: one key of ``head_size``
    elements and ``token_bytes`` bytes a token, for ``heads`` index heads."""

    count: int
    heads: int
    head_size: int
    token_bytes: int
    kind: Literal["index"] = "index"

    state_flops: ClassVar[int] = 0
    state_bytes: ClassVar[int] = 0
    selectable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_sizes(self)

    @property
    def span(self) -> Span:
        return Whole()

    @property
    def flops(self) -> int:
        return 2 * self.count * self.heads * self.head_size

    @property
    def prefill_flops(self) -> int:
        return self.flops

    def read_bytes(self, kv_bytes: int) -> int:
        return self.count * self.token_bytes

    def stored_bytes(self, kv_bytes: int) -> int:
        return self.read_bytes(kv_bytes)


@dataclass(frozen=True)
class StateLayers:
    """Recurrent layers: a state of fixed size, read and written once a step.

    Per layer, ``state_elements`` of ``element_bytes`` bytes each and the ``conv_elements`` (of 2 bytes) that a short
    convolution remembers; ``layer_flops`` update both and read them out, for one token.
    """

    count: int
    state_elements: int
    element_bytes: int
    conv_elements: int
    layer_flops: int
    kind: Literal["state"] = "state"

    selectable: ClassVar[bool] = False
    flops: ClassVar[int] = 0
    prefill_flops: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_sizes(self, zero=("state_elements", "conv_elements"))

    @property
    def span(self) -> Span:
        return Whole()

    def read_bytes(self, kv_bytes: int) -> int:
        return 0

    def stored_bytes(self, kv_bytes: int) -> int:
        return 0

    @property
    def state_flops(self) -> int:
        return self.count * self.layer_flops

    @property
    def state_bytes(self) -> int:
        return 2 * self.count * (self.state_elements * self.element_bytes + 2 * self.conv_elements)


Layers = AttentionLayers | LatentLayers | IndexLayers | StateLayers
KINDS: Mapping[str, type[Layers]] = {
    "attention": AttentionLayers,
    "latent": LatentLayers,
    "index": IndexLayers,
    "state": StateLayers,
}


def layers_of(group: Mapping[str, Any]) -> Layers:
    """The group that ``dataclasses.asdict`` took apart; one without a kind is of attention layers. Raises ValueError,
    TypeError."""
    kind = group.get("kind", "attention")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind of layers {kind!r}; expected one of {', '.join(KINDS)}")
    return KINDS[kind](**group)


def _check_sizes(group: Layers, zero: tuple[str, ...] = ()) -> None:
    for field in fields(group):
        value = getattr(group, field.name)
        if isinstance(value, int) and not isinstance(value, bool) and value < (0 if field.name in zero else 1):
            raise ValueError(f"every size of a group of layers must be at least 1, got {group}")
