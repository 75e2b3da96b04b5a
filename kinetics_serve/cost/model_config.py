"""Reading a Hugging Face ``config.json``: which families are understood, and what their attention layers
look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

# Gemma 3 configs leave out what equals their class's default; elsewhere the keys we read are always written.
GEMMA3_DEFAULTS: Config = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
}
GEMMA2_DEFAULTS: Config = {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 2}
DEFAULTS: Mapping[str, Config] = {
    "gemma2": GEMMA2_DEFAULTS,
    "gemma3": GEMMA3_DEFAULTS,
    "gemma3_text": GEMMA3_DEFAULTS,
}

# rms_norm_eps tells Llama's descendants (gated MLP, RMSNorm) from BERT, OPT or GPT-NeoX, whose other keys
# agree.
REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)

# Keys of models whose KV cache, layers or weights are not those of Llama.
FOREIGN = {
    "kv_lora_rank": "multi-head latent attention",
    "n_routed_experts": "DeepSeek-style experts",
    "linear_num_key_heads": "linear attention",
    "mamba_d_state": "state-space layers",
    "ssm_state_size": "state-space layers",
    "state_size": "state-space layers",
    "attn_layer_period": "hybrid layers",
    "attn_type_list": "hybrid layers",
    "block_types": "recurrent layers",
    "altup_num_inputs": "Gemma 3n's layers",
    "attention_chunk_size": "chunked attention",
    "num_kv_shared_layers": "KV shared between layers",
    "cross_attention_layers": "cross attention",
}
SUPPORTED = (
    "Llama, Mistral, Mixtral, Qwen2, Qwen2-MoE, Qwen3, Qwen3-MoE, Gemma, Gemma 2, Gemma 3, Phi-3 "
    "and models of the same keys"
)


class UnsupportedArchitecture(ValueError):
    """A config.json whose cost is not known to be that of a Llama-like transformer."""

    def __init__(self, name: str, model_type: object, found: str) -> None:
        super().__init__(f"{name}: cannot price model_type {model_type!r}: found {found}; supported are {SUPPORTED}")


def text_config(config: Config, name: str) -> Config:
    """The language model's part of ``config``, its family's defaults filled in.

    Raises ``UnsupportedArchitecture`` when a required key is missing or a foreign one is present.
    """
    text = config.get("text_config")
    text = dict(text if isinstance(text, Mapping) else config)
    text.setdefault("model_type", config.get("model_type"))
    if "tie_word_embeddings" in config:
        text.setdefault("tie_word_embeddings", config["tie_word_embeddings"])
    text = {**DEFAULTS.get(str(text["model_type"]), {}), **text}
    foreign = [f"{key} ({FOREIGN[key]})" for key in FOREIGN if text.get(key)]
    if foreign:
        raise UnsupportedArchitecture(name, text["model_type"], ", ".join(foreign))
    missing = [key for key in REQUIRED if text.get(key) is None]
    if missing:
        raise UnsupportedArchitecture(name, text["model_type"], f"no {', '.join(missing)}")
    return text


def head_size(config: Config) -> int:
    """Elements of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def kv_heads(config: Config) -> int:
    """KV heads of a layer; as many as query heads where the config names none."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def max_context(config: Config) -> int | None:
    """Tokens that the positions reach, or None if the config does not say."""
    tokens = config.get("max_position_embeddings")
    return None if tokens is None else int(tokens)


def attention_layers(config: Config, name: str) -> list[tuple[int, int, int, int, int | None]]:
    """Groups of alike layers, in order of appearance: count, query heads, KV heads, head size, window."""
    shape = (int(config["num_attention_heads"]), kv_heads(config), head_size(config))
    windows = Counter(layer_windows(config, name))
    return [(count, *shape, window) for window, count in windows.items()]


def layer_windows(config: Config, name: str) -> list[int | None]:
    """Every layer's sliding window in tokens, None for full attention.

    A list ``layer_types`` decides where there is one; then the family's rule: every pattern-th layer is full
    (Gemma), layers from ``max_window_layers`` on slide if ``use_sliding_window`` (Qwen), or all layers slide
    (Mistral).
    """
    layers = int(config["num_hidden_layers"])
    window = config.get("sliding_window")
    types = config.get("layer_types")
    if types:
        if len(types) != layers:
            raise UnsupportedArchitecture(name, config["model_type"], f"{len(types)} layer_types for {layers} layers")
        return [_typed_window(kind, window, config, name) for kind in types]
    slides_by_default = not str(config["model_type"]).startswith("qwen")
    if window is None or not config.get("use_sliding_window", slides_by_default):
        return [None] * layers
    pattern = config.get("sliding_window_pattern")
    if pattern:
        return [None if (index + 1) % pattern == 0 else int(window) for index in range(layers)]
    full = int(config.get("max_window_layers") or 0)
    return [None if index < full else int(window) for index in range(layers)]


def _typed_window(kind: object, window: int | None, config: Config, name: str) -> int | None:
    if kind == "full_attention":
        return None
    if kind == "sliding_attention" and window is not None:
        return int(window)
    raise UnsupportedArchitecture(name, config["model_type"], f"a layer of type {kind!r}, sliding_window {window}")
