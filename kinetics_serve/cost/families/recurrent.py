"""Layers that keep a state of fixed size instead of keys and values.

FLOPs of a step are those of the recurrence over a state of n elements: 7·n for the delta rule (decay, read of the old
value, rank-1 update, read of the output), 5·n without that read; 2·k for every channel of a convolution of k taps.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinetics_serve.cost.families.attention import Attention, Heads, head_size, switched_on
from kinetics_serve.cost.families.config import Config
from kinetics_serve.cost.families.parts import Part, dense
from kinetics_serve.cost.layers import StateLayers

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def state_bytes(config: Config, default: int = 2) -> int:
    """Bytes of a state's element, as the checkpoint asks for."""
    dtype = config.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype")
    if dtype is None:
        return default
    if dtype not in DTYPE_BYTES:
        raise config.refuse(f"mamba_ssm_dtype {dtype!r}, expected one of {', '.join(DTYPE_BYTES)}")
    return DTYPE_BYTES[dtype]


@dataclass(frozen=True)
class GatedDeltaNet:
    """Gated DeltaNet (arXiv 2412.06464)."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, taps = config.count("hidden_size"), config.count("linear_conv_kernel_dim")
        attention_heads = config.optional("num_attention_heads")
        key_heads = config.count("linear_num_key_heads", default=attention_heads)
        value_heads = config.count("linear_num_value_heads", default=attention_heads)
        key_size = config.count("linear_key_head_dim", default=int(0.75 * hidden / key_heads))
        value_size = config.count("linear_value_head_dim", default=2 * key_size)
        keys, values = key_heads * key_size, value_heads * value_size
        weights = hidden * (2 * keys + 2 * values + 2 * value_heads)  # q, k; v, output gate; decay and write strength
        weights += (2 * keys + values) * taps + 2 * value_heads + value_size + values * hidden
        state, channels = values * key_size, 2 * keys + values
        flops = 7 * state + 2 * taps * channels
        return dense(weights, StateLayers(1, state, state_bytes(config), channels * (taps - 1), flops))


@dataclass(frozen=True)
class KimiDeltaAttention:
    """Kimi's delta attention (arXiv 2510.26692): a decay for every channel of a key."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden = config.count("hidden_size")
        given = config.value("linear_attn_config") is not None
        linear = config.part("linear_attn_config") if given else config
        heads = linear.count("num_heads" if given else "linear_num_heads")
        size = linear.count("head_dim" if given else "linear_head_dim")
        taps = linear.count("short_conv_kernel_size" if given else "linear_conv_kernel_dim")
        if given:
            linear.ignore("full_attn_layers", "kda_layers")
            linear.check_all_read()
        width = heads * size
        weights = 4 * hidden * width + 3 * width * taps + 2 * (hidden * size + size * width)  # decay and output gate
        weights += width + heads + hidden * heads + size
        state = width * size
        flops = 7 * state + 2 * taps * 3 * width
        return dense(weights, StateLayers(1, state, state_bytes(config, 4), 3 * width * (taps - 1), flops))


@dataclass(frozen=True)
class Mamba2:
    """Mamba-2 (arXiv 2405.21060). The fields are the names of its sizes; ``norm`` is whether its output is normed."""

    heads: str = "mamba_n_heads"
    head_dim: str = "mamba_d_head"
    groups: str = "mamba_n_groups"
    state: str = "mamba_d_state"
    taps: str = "mamba_d_conv"
    conv_bias: str = "mamba_conv_bias"
    bias: bool | str = "mamba_proj_bias"
    norm: bool | str = True
    default_bytes: int = 2

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, heads, groups = config.count("hidden_size"), config.count(self.heads), config.count(self.groups)
        state, taps = config.count(self.state), config.count(self.taps)
        inner = heads * self._head_dim(config, heads)
        channels = inner + 2 * groups * state
        wide = inner + channels + heads
        weights = hidden * wide + channels * taps + 3 * heads + inner * hidden
        weights += channels if config.flag(self.conv_bias, default=True) else 0
        weights += wide + hidden if switched_on(config, self.bias) else 0
        weights += inner if switched_on(config, self.norm) else 0
        flops = 5 * inner * state + 2 * taps * channels
        remembered = channels * (taps - 1)
        return dense(weights, StateLayers(1, inner * state, state_bytes(config, self.default_bytes), remembered, flops))

    def _head_dim(self, config: Config, heads: int) -> int:
        inner = config.optional("mamba_d_ssm")
        config.ignore("mamba_expand", "expand")  # what the heads make of it
        size = config.value(self.head_dim)
        if size == "auto":
            width = config.count("mamba_expand", default=2) * config.count("hidden_size")
            return max((inner or width) // heads, 1)
        size = config.count(self.head_dim)
        if inner is not None and inner != size * heads:
            raise config.refuse(f"mamba_d_ssm {inner}, but {heads} heads of {size}")
        return size


@dataclass(frozen=True)
class Lightning:
    """Lightning attention (arXiv 2401.04658): a state of head size squared a head, kept in fp32; ``head_norms`` as in
    ``Attention``."""

    head_norms: bool = False

    def part(self, config: Config, index: int, kind: str) -> Part:
        heads = config.count("num_attention_heads")
        size = head_size(config, heads)
        shape = Heads(heads, heads, size, size)
        projections = Attention(head_norms="head" if self.head_norms else "", gate="element")
        weights = projections.parameters(config, shape) + heads * size  # and the output's norm
        state = heads * size * size
        return dense(weights, StateLayers(1, state, 4, 0, 5 * state))


@dataclass(frozen=True)
class ShortConvolution:
    """LFM2's gated short convolution: it remembers all taps but one."""

    def part(self, config: Config, index: int, kind: str) -> Part:
        hidden, taps = config.count("hidden_size"), config.count("conv_L_cache")
        weights = 4 * hidden * hidden + hidden * taps
        weights += 5 * hidden if config.flag("conv_bias") else 0
        return dense(weights, StateLayers(1, 0, 2, hidden * (taps - 1), 2 * taps * hidden))
