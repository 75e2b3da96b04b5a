"""Turns a GGUF file into a safetensors folder that vLLM serves, with transformers.

Run as a program by the engine's Python, `python gguf_to_safetensors.py MODEL.gguf FOLDER`: it imports torch,
which the front-end must not. vLLM has no GGUF loader of its own.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf_file: Path, folder: Path) -> None:
    """Writes the weights (bfloat16), config, generation config, tokenizer and chat template into `folder`."""
    tokenizer = read_tokenizer(gguf_file)
    model = read_model(gguf_file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_tokenizer(gguf_file: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    if tokenizer.chat_template is None:
        raise ValueError(f"{gguf_file.name} has no chat template: expected an instruct model")
    kind = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    if kind is not None and kind.contents() == "smollm":
        # transformers takes every byte-level BPE for GPT-2's. SmolLM also sets each digit apart; without that,
        # line breaks and spaces before a number ("\n\n1.") become tokens that it was not trained on there.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def read_model(gguf_file: Path) -> Any:
    quantization = GgufConfig(gguf_file=gguf_file.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, quantization_config=quantization, dtype=torch.bfloat16
    )
    # The weights are plain bfloat16 now; a quantization config left behind would make vLLM look for GGUF.
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        if name in model.config.__dict__:
            delattr(model.config, name)
    return model


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
