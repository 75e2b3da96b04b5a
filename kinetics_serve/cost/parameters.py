"""How many weights a config.json implies, counted from the shapes of its tensors.

Unique weights: a tied embedding counts once. It is read as embedding and multiplied as output head, and only
the second costs FLOPs, so 2·P is then exact; published checkpoint sizes sometimes count it twice
(Qwen3-0.6B: 0.596e9 unique, 0.752e9 with the copy).
"""

from __future__ import annotations

from kinetics_serve.cost.model_config import Config, head_size, kv_heads

QKV_BIAS = ("qwen2", "qwen2_moe")  # their config has no key for it
HEAD_NORMS = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text")  # RMSNorm over each query and key head
SANDWICH_NORMS = ("gemma2", "gemma3", "gemma3_text")  # norms before and after attention and MLP
TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3", "gemma3_text")


def unique_parameters(config: Config) -> int:
    """All weights of the model, each once, experts included."""
    layers, hidden = int(config["num_hidden_layers"]), int(config["hidden_size"])
    sparse = sparse_layers(config)
    norms = (4 if config["model_type"] in SANDWICH_NORMS else 2) * hidden
    return (
        int(config["vocab_size"]) * hidden * (1 if tied_embeddings(config) else 2)
        + layers * (_attention(config) + norms)
        + (layers - sparse) * _mlp(config, int(config["intermediate_size"]))
        + sparse * _experts(config)
        + hidden
    )


def inactive_expert_parameters(config: Config) -> int:
    """Weights of the experts that one token is not routed to; 0 for a dense model."""
    idle = experts(config) - int(config.get("num_experts_per_tok") or 0)
    return sparse_layers(config) * idle * _mlp(config, _expert_width(config))


def tied_embeddings(config: Config) -> bool:
    """Whether the output head is the embedding."""
    return bool(config.get("tie_word_embeddings", config["model_type"] in TIED_BY_DEFAULT))


def experts(config: Config) -> int:
    """Routed experts of a sparse layer; 0 for a dense model."""
    return int(config.get("num_local_experts") or config.get("num_experts") or 0)


def sparse_layers(config: Config) -> int:
    """Layers whose MLP is a mixture of experts."""
    if not experts(config):
        return 0
    step, dense = int(config.get("decoder_sparse_step") or 1), config.get("mlp_only_layers") or ()
    return sum((index + 1) % step == 0 and index not in dense for index in range(int(config["num_hidden_layers"])))


def _attention(config: Config) -> int:
    hidden, head = int(config["hidden_size"]), head_size(config)
    query, kv = int(config["num_attention_heads"]) * head, kv_heads(config) * head
    weights = 2 * hidden * query + 2 * hidden * kv
    if config.get("attention_bias"):
        weights += query + 2 * kv + hidden
    elif config["model_type"] in QKV_BIAS:
        weights += query + 2 * kv
    if config["model_type"] in HEAD_NORMS:
        weights += 2 * head
    return weights


def _mlp(config: Config, width: int) -> int:
    hidden = int(config["hidden_size"])
    return 3 * hidden * width + (2 * width + hidden if config.get("mlp_bias") else 0)


def _expert_width(config: Config) -> int:
    return int(config.get("moe_intermediate_size") or config["intermediate_size"])


def _experts(config: Config) -> int:
    hidden, shared = int(config["hidden_size"]), int(config.get("shared_expert_intermediate_size") or 0)
    weights = experts(config) * (_mlp(config, _expert_width(config)) + hidden)  # and the router's row
    return weights + (_mlp(config, shared) + hidden if shared else 0)  # and the shared expert's gate
