"""What a checkpoint's quantization says: the bytes of its KV cache, and what its weights are multiplied in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kinetics_serve.cost.families.config import Config, shown
from kinetics_serve.cost.hardware_profile import GemmDtype


def kv_cache_bytes(quantization: object, config: Config) -> int:
    """Bytes of an element of the KV cache, by compressed-tensors' ``kv_cache_scheme`` or ModelOpt's
    ``kv_cache_quant_algo``, as vLLM follows them; 2 where neither says anything."""
    if not isinstance(quantization, Mapping):
        return 2
    inner = quantization.get("quantization")
    said = {**(inner if isinstance(inner, Mapping) else {}), **quantization}
    scheme, algorithm = said.get("kv_cache_scheme"), said.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        if scheme.get("num_bits") == 8:
            return 1
        raise config.refuse(f"kv_cache_scheme {shown(dict(scheme))}, expected one of 8 bits")
    if scheme is not None:
        raise config.refuse(f"kv_cache_scheme {shown(scheme)}, expected an object")
    if algorithm is None or algorithm == "none":
        return 2
    if isinstance(algorithm, str) and algorithm.upper() == "FP8":
        return 1
    raise config.refuse(f"kv_cache_quant_algo {shown(algorithm)}, expected FP8")


def gemm_dtype(quantization: object) -> GemmDtype:
    """What most weights are multiplied in: fp8 or fp4 where weights *and* activations are, bf16 otherwise."""
    if not isinstance(quantization, Mapping):
        return "bf16"
    inner = quantization.get("quantization")
    said = {**(inner if isinstance(inner, Mapping) else {}), **quantization}
    method, algorithm = said.get("quant_method"), said.get("quant_algo")
    algorithm = algorithm.upper() if isinstance(algorithm, str) else ""
    if method == "fp8" or method == "fbgemm_fp8" or algorithm.startswith("FP8"):
        return "fp8"
    if algorithm == "NVFP4":
        return "fp4"
    bits = set(_activation_bits(quantization))
    return "bf16" if not bits else "fp8" if 8 in bits else "fp4" if 4 in bits else "bf16"


def _activation_bits(quantization: Mapping[str, Any]) -> Iterator[object]:
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        activations = group.get("input_activations") if isinstance(group, Mapping) else None
        if isinstance(activations, Mapping) and activations.get("type") == "float":
            bits = activations.get("num_bits")
            yield bits if isinstance(bits, int) else None
