import json
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.cost import UnsupportedArchitecture, load_architecture, read_config

CONFIG: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


def model_folder(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_without_weights_the_shapes_count(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    assert load_architecture(folder) == read_config(CONFIG, str(folder))


def test_a_config_may_be_named_itself(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    assert load_architecture(folder / "config.json").parameters == load_architecture(folder).parameters


def test_the_weights_of_a_quantized_model_are_counted_as_weights(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    folder = model_folder(tmp_path, config)
    assert load_architecture(folder).parameters == read_config(CONFIG, "shapes").parameters


@pytest.mark.parametrize(
    ("quantization", "kv_bytes", "gemm"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, 2, "fp8"),
        ({"quant_method": "gptq", "bits": 4}, 2, "bf16"),
        ({"quant_method": "mxfp4"}, 2, "bf16"),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}, 1, "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}, 1, "fp4"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None}, 2, "bf16"),
    ],
)
def test_a_checkpoint_says_its_cache_and_what_it_is_multiplied_in(
    quantization: dict[str, Any], kv_bytes: int, gemm: str
) -> None:
    architecture = read_config({**CONFIG, "quantization_config": quantization}, "model")
    assert (architecture.kv_bytes, architecture.gemm_dtype) == (kv_bytes, gemm)


def test_modelopts_own_file_counts_where_the_config_says_nothing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    content = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(content))
    architecture = load_architecture(folder)
    assert (architecture.kv_bytes, architecture.gemm_dtype) == (1, "fp8")


@pytest.mark.parametrize(
    "scheme",
    [
        {"kv_cache_scheme": {"num_bits": 4, "type": "float"}},
        {"kv_cache_scheme": "fp8"},
        {"kv_cache_quant_algo": "INT8"},
    ],
)
def test_a_cache_of_another_dtype_is_refused_by_its_key(scheme: dict[str, Any]) -> None:
    (key,) = scheme
    with pytest.raises(UnsupportedArchitecture, match=key):
        read_config({**CONFIG, "quantization_config": {"quant_method": "modelopt", **scheme}}, "model")


def test_a_missing_folder_and_a_missing_config_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load_architecture(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load_architecture(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_architecture(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "JSON list; expected an object")])
def test_a_broken_config_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_architecture(tmp_path)


def test_a_key_that_the_model_type_does_not_have_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {**CONFIG, "kv_lora_rank": 512})
    with pytest.raises(UnsupportedArchitecture, match="unknown kv_lora_rank"):
        load_architecture(folder)


@pytest.mark.parametrize("name", ["not/a/model", "nowhere/absent"])
def test_a_name_that_is_no_folder_and_no_model_says_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"no folder .* and no config\.json"):
        load_architecture(name)
