import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from kinetics_serve.cost import Architecture, UnsupportedArchitecture, load_architecture

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


def tensors(config: dict[str, Any]) -> dict[str, list[int]]:
    """The tensors of a Qwen2 checkpoint, by the names and shapes that transformers gives them."""
    hidden, width, kv = config["hidden_size"], config["intermediate_size"], 4
    shapes = {"model.embed_tokens.weight": [32, hidden], "model.norm.weight": [hidden]}
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = [rows, hidden]
            shapes[f"{layer}.self_attn.{name}_proj.bias"] = [rows]
        shapes[f"{layer}.self_attn.o_proj.weight"] = [hidden, hidden]
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = [width, hidden]
        shapes[f"{layer}.mlp.down_proj.weight"] = [hidden, width]
        shapes[f"{layer}.input_layernorm.weight"] = [hidden]
        shapes[f"{layer}.post_attention_layernorm.weight"] = [hidden]
    return shapes


def write_safetensors(file: Path, shapes: dict[str, list[int]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def model_folder(folder: Path, config: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_without_weights_the_shapes_count(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    assert load_architecture(folder) == Architecture.from_config(CONFIG, str(folder))


def test_a_checkpoint_holds_as_many_weights_as_its_shapes_say(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    write_safetensors(folder / "model.safetensors", tensors(CONFIG))
    assert load_architecture(folder).parameters == Architecture.from_config(CONFIG, "shapes").parameters


def test_stored_weights_decide_over_shapes(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    write_safetensors(folder / "model.safetensors", {**tensors(CONFIG), "model.extra.weight": [5, 3]})
    assert load_architecture(folder).parameters == Architecture.from_config(CONFIG, "shapes").parameters + 15


def test_a_stored_copy_of_a_tied_embedding_and_a_vision_tower_do_not_count(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, CONFIG)
    other = {"lm_head.weight": [32, 8], "vision_tower.patch.weight": [100, 100]}
    write_safetensors(folder / "model.safetensors", {**tensors(CONFIG), **other})
    assert load_architecture(folder).parameters == Architecture.from_config(CONFIG, "shapes").parameters


def test_an_untied_output_head_counts(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": False}
    folder = model_folder(tmp_path, config)
    write_safetensors(folder / "model.safetensors", {**tensors(config), "lm_head.weight": [32, 8]})
    assert load_architecture(folder).parameters == Architecture.from_config(config, "shapes").parameters


def test_the_files_of_an_index_are_counted_once_each(tmp_path: Path) -> None:
    folder, shapes = model_folder(tmp_path, CONFIG), tensors(CONFIG)
    first, second = dict(list(shapes.items())[:5]), dict(list(shapes.items())[5:])
    write_safetensors(folder / "model-1.safetensors", first)
    write_safetensors(folder / "model-2.safetensors", {**second, "model.extra": [7]})
    write_safetensors(folder / "consolidated.safetensors", shapes)
    places = dict.fromkeys(first, "model-1.safetensors") | dict.fromkeys(second, "model-2.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    expected = Architecture.from_config(CONFIG, "shapes").parameters
    assert load_architecture(str(folder)).parameters == expected + 7
    (folder / "model-2.safetensors").unlink()
    assert load_architecture(str(folder)).parameters == expected


def test_packed_weights_of_a_quantized_model_are_not_counted(tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    folder = model_folder(tmp_path, config)
    write_safetensors(folder / "model.safetensors", {"model.layers.0.mlp.up_proj.qweight": [8, 2]})
    assert load_architecture(folder).parameters == Architecture.from_config(CONFIG, "shapes").parameters


@pytest.mark.parametrize("content", [b"", b"12345678", struct.pack("<Q", 4) + b"nope"])
def test_a_broken_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = model_folder(tmp_path, CONFIG)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        load_architecture(folder)


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


def test_an_unsupported_model_with_weights_is_refused_as_such(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, {**CONFIG, "kv_lora_rank": 512})
    write_safetensors(folder / "model.safetensors", tensors(CONFIG))
    with pytest.raises(UnsupportedArchitecture, match="kv_lora_rank"):
        load_architecture(folder)


@pytest.mark.parametrize("name", ["not/a/model", "nowhere/absent"])
def test_a_name_that_is_no_folder_and_no_model_says_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"no folder .* and no config\.json"):
        load_architecture(name)
