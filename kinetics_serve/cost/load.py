"""Finding a model's config.json, and counting its weights in the safetensors files beside it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.model_config import text_config
from kinetics_serve.cost.parameters import tied_embeddings

# Parts of a multimodal model that no text token passes through.
OTHER_MODALITIES = ("vision", "visual", "audio", "multi_modal_projector", "embed_vision")


def load_architecture(model: str | Path) -> Architecture:
    """The architecture of a model folder, or of a Hugging Face model name, whose config.json is downloaded.

    Weights are counted in the safetensors headers where all of the model's files lie beside its config.json
    and are not quantized, otherwise computed from the shapes. Raises FileNotFoundError without a config.json,
    ValueError if it is not a JSON object, and ``UnsupportedArchitecture`` (a ValueError) if it cannot be
    priced.
    """
    path = _find_config(model)
    config = _read_json(path)
    return Architecture.from_config(config, str(model), stored_parameters(path.parent, config))


def stored_parameters(folder: Path, config: Mapping[str, Any]) -> int | None:
    """Unique weights in the safetensors files of ``folder``, or None where they cannot be counted there."""
    files = _weight_files(folder)
    if not files or config.get("quantization_config"):  # packed weights and their scales are not parameters
        return None
    tied = tied_embeddings(text_config(config, str(folder)))
    return sum(
        math.prod(shape)
        for file in files
        for name, shape in tensor_shapes(file)
        if not (tied and name.endswith("lm_head.weight")) and not any(part in name for part in OTHER_MODALITIES)
    )


def tensor_shapes(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor in a safetensors file, from its header: an 8-byte length, then JSON.

    Raises ValueError if the header cannot be read.
    """
    with file.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > file.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(stream.read(length))
        except (struct.error, ValueError) as error:
            raise ValueError(f"{file} is not a safetensors file: {error}") from error
    for name, tensor in header.items():
        if name != "__metadata__":
            yield name, tensor["shape"]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    else:
        files = [folder / "model.safetensors"]
    return files if all(file.is_file() for file in files) else []


def _find_config(model: str | Path) -> Path:
    folder = Path(model).expanduser()
    if folder.is_dir():
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no config.json; expected a Hugging Face model folder")
        return path
    if isinstance(model, Path) or folder.is_absolute() or model.startswith((".", "~")):
        raise FileNotFoundError(f"no model folder {folder}")
    return _download_config(model)


def _download_config(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(
            f"no folder {name!r} here, and no config.json of a Hugging Face model of that name: {error}"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content
