"""A model's config.json, read with types: each key that is read is remembered, so that one that was not can be
refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

LARGEST = 2**31  # no size of a model comes near it, and products of sizes stay within a float
MOST_LAYERS = 4096

MATTERS = re.compile(
    "expert|moe|att|head|kv|cache|layer|window|sliding|swa|chunk|lora|rank|index|sparse|mamba|ssm|state|conv|linear"
    "|compress|mlp|ffn|intermediate|dim|size|topk|top_k|block|embed|tie_|mixer|pattern|freq|group|share|latent|recurrent"
    "|gate|gating|gram|memory|hash|hc_|loop|depth|width|interval|ratio|stride|query|key|value|_bias|_norm|dense|router"
)
"""Unread keys that hold one of these words are refused."""

HARMLESS = re.compile(
    "^_|^(rope|router|mtp|aux|beam|encoder|vision|image|video|audio|pretraining|quantization|gradient|output|return|id2"
    "|label2|task|mrope|init|no_rope)_|dropout|initializer|_token_(id|ids|index)$|_aux_|_loss|jitter|rotary"
)
HARMLESS_KEYS = frozenset(
    {
        "add_cross_attention", "attention_multiplier", "attention_value_scale", "attn_implementation",
        "attn_logit_softcapping", "attn_scale", "attn_temperature_tuning", "cache_implementation", "chunk_size",
        "chunk_size_feed_forward", "cross_attention_hidden_size", "dtype", "embd_pdrop", "embedding_multiplier",
        "ep_size", "expert_dtype", "gradient_checkpointing", "hidden_act", "hidden_activation",
        "index_share_for_mtp_iteration", "indexer_rope_interleave", "is_decoder", "layer_norm_eps",
        "layer_norm_epsilon", "layernorm_epsilon", "logit_scale", "logits_scaling", "mamba_chunk_size",
        "mamba_hidden_act", "max_position_embeddings", "max_seq_len", "mlp_hidden_act", "model_max_length",
        "model_type", "moe_apply_router_weight_on_input", "moe_renormalize", "moe_routed_scaling_factor",
        "moe_router_activation_func", "moe_router_dtype", "moe_router_logit_softcapping",
        "moe_router_scaling_factor", "n_group", "n_positions", "no_repeat_ngram_size", "norm_after_topk",
        "norm_eps", "norm_topk_prob", "num_beam_groups", "num_logits_to_keep", "num_mtp_modules",
        "num_nextn_predict_layers", "num_return_sequences", "original_max_position_embeddings", "prefix",
        "query_pre_attn_scalar", "rescale_prenorm_residual", "resid_pdrop", "residual_in_fp32", "rms_norm_eps",
        "rope_interleave", "rope_local_base_freq", "score_function", "scoring_func", "seq_aux",
        "swa_rope_theta", "tie_encoder_decoder", "top_k", "topk_group", "topk_method", "torch_dtype",
        "use_bidirectional_attention", "use_cache", "use_mamba_kernels",
    }
)  # fmt: skip
"""Of those, what costs nothing, or nothing that depends on it: training, routing's arithmetic, positions, drafts."""


class UnsupportedArchitecture(ValueError):
    """A config.json that is not known to be priced right: of a type that is not known, or with a key or value that is
    not."""

    def __init__(self, name: str, model_type: object, found: str) -> None:
        super().__init__(f"{name}: cannot price model_type {shown(model_type)}: {found}")


class Config:
    """The language model's part of a config.json, with what its class fills in where it is silent.

    Every read names the key under which families know a thing; several keys are several names for it. Raises
    ``UnsupportedArchitecture`` for a value of another type or out of range, for a missing key without a default, and
    for names that contradict each other.
    """

    def __init__(self, given: Mapping[str, Any], defaults: Mapping[str, Any], name: str, model_type: str) -> None:
        self.given = given
        self.defaults = defaults
        self.name = name
        self.model_type = model_type
        self.known: set[str] = set()

    def refuse(self, found: str) -> UnsupportedArchitecture:
        return UnsupportedArchitecture(self.name, self.model_type, found)

    def value(self, *keys: str) -> Any:
        """What any of the keys holds; None where none is given or it is null."""
        self.known.update(keys)
        given = [(key, self.given[key]) for key in keys if self.given.get(key) is not None]
        for key, value in given[1:]:
            if value != given[0][1]:
                raise self.refuse(f"{given[0][0]} {shown(given[0][1])}, but {key} {shown(value)}")
        if given:
            return given[0][1]
        if any(key in self.given for key in keys):  # null: the class's default does not apply
            return None
        return next((self.defaults[key] for key in keys if self.defaults.get(key) is not None), None)

    def ignore(self, *keys: str) -> None:
        """The keys are known, and cost nothing here."""
        self.known.update(keys)

    def agree(self, expected: object, key: str) -> None:
        """A key that may only say what is known without it, once or in a list for each layer."""
        self.known.add(key)
        value = self.given.get(key)
        if value is None:
            return
        each = (self.listed(key, length=self.layers) or ()) if isinstance(value, list) else [value]
        if any(one is not expected if isinstance(one, bool) else one != expected for one in each):
            raise self.refuse(f"{key} {shown(value)}, expected {shown(expected)}")

    def whole(self, *keys: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self.value(*keys)
        if value is None:
            value = default
        if value is None:
            raise self.refuse(f"no {' or '.join(keys)}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
            raise self.refuse(f"{keys[0]} {shown(value)}, expected a whole number")
        return value

    def count(self, *keys: str, default: int | None = None) -> int:
        """A whole number from 1."""
        value = self.whole(*keys, default=default)
        if value == 0:
            raise self.refuse(f"{keys[0]} 0, expected at least 1")
        return value

    def optional(self, *keys: str) -> int | None:
        """A whole number from 1, or None for null, 0 and no such key."""
        return self.whole(*keys, default=0) or None

    def flag(self, *keys: str, default: bool = False) -> bool:
        value = self.value(*keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(f"{keys[0]} {shown(value)}, expected true or false")
        return value

    def text(self, *keys: str) -> str | None:
        value = self.value(*keys)
        if value is not None and not isinstance(value, str):
            raise self.refuse(f"{keys[0]} {shown(value)}, expected a string")
        return value

    def listed(self, *keys: str, length: int | None = None) -> Sequence[Any] | None:
        """A list, of ``length`` where that is given; None for null and no such key."""
        value = self.value(*keys)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.refuse(f"{keys[0]} {shown(value)}, expected a list")
        if length is not None and len(value) != length:
            raise self.refuse(f"{len(value)} {keys[0]} for {length} layers")
        return value

    def of_layer(self, index: int, *keys: str) -> int:
        """A whole number from 0, given as one for all layers or in a list that tells each layer's."""
        if not isinstance(self.value(*keys), list):
            return self.whole(*keys)
        each = (self.listed(*keys, length=self.layers) or ())[index]
        if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each <= LARGEST:
            raise self.refuse(f"{shown(each)} in {keys[0]}, expected whole numbers")
        return each

    def count_of_layer(self, index: int, *keys: str) -> int:
        """The same, from 1."""
        number = self.of_layer(index, *keys)
        if number == 0:
            raise self.refuse(f"0 in {keys[0]}, expected at least 1")
        return number

    def part(self, key: str) -> Config:
        """The object that a key holds, as a config of its own; its keys must all be read."""
        value = self.value(key)
        if not isinstance(value, Mapping):
            raise self.refuse(f"{key} {shown(value)}, expected an object")
        return Config(value, {}, f"{self.name}, {key}", self.model_type)

    def of_one_layer(self, index: int) -> Config | None:
        """What ``per_layer_config`` says of a layer, as transformers writes models whose layers differ; None without
        it."""
        value = self.value("per_layer_config")
        if value is None:
            return None
        own = value.get(str(index), {}) if isinstance(value, Mapping) else None
        if not isinstance(own, Mapping):
            raise self.refuse(f"per_layer_config {shown(value)}, expected an object of objects")
        return Config(own, {}, f"{self.name}, layer {index}", self.model_type)

    @property
    def layers(self) -> int:
        """How many there are."""
        layers = self.count("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        if layers > MOST_LAYERS:
            raise self.refuse(f"num_hidden_layers {layers}, expected at most {MOST_LAYERS}")
        return layers

    def check_all_read(self) -> None:
        """Refuses keys that nothing read and that may matter. What is switched off (null, false, 0, empty) does not."""
        unread = [
            key
            for key, value in self.given.items()
            if value
            and key not in self.known
            and MATTERS.search(key)
            and key not in HARMLESS_KEYS
            and not HARMLESS.search(key)
        ]
        if unread:
            raise self.refuse(f"unknown {', '.join(unread[:8])}")


def shown(value: object) -> str:
    """A value as error messages show it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
