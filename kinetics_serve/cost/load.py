"""Finding a model's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kinetics_serve.cost.architecture import Architecture
from kinetics_serve.cost.families import read_config


def load_architecture(model: str | Path) -> Architecture:
    """The architecture of a model folder, of a config.json, or of a Hugging Face model name, whose config.json is
    downloaded.

    ModelOpt's hf_quant_config.json counts where it lies beside the config and that says nothing. Raises
    FileNotFoundError without a config.json, ValueError if it is not a JSON object, and ``UnsupportedArchitecture`` (a
    ValueError) if it cannot be priced.
    """
    path = _find_config(model)
    config = _read_json(path)
    quantization = path.with_name("hf_quant_config.json")
    if not config.get("quantization_config") and quantization.is_file():
        config = {**config, "quantization_config": _read_json(quantization)}
    return read_config(config, str(model))


def _find_config(model: str | Path) -> Path:
    folder = Path(model).expanduser()
    if folder.is_file():
        return folder
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
