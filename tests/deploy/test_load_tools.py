"""The recipes of docs/loadtest.md, as they stand there, against a front-end of the stand-in for vLLM."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clients.__main__ import tokenizer_in
from benchmarks.clients.load_tools import VLLM_BENCH
from tests.fake_vllm import MODEL, FakeVllm
from tests.test_architecture import ROOT

PAGE = (ROOT / "docs" / "loadtest.md").read_text()
TOOLS = ROOT / ".venv-tools" / "bin"
"""Where `make conformance` puts them."""


def recipe(program: str, url: str, folder: Path) -> list[str]:
    """The words of the page's command line, after the program, with its names replaced."""
    (block,) = re.findall(rf"^    {program} (.*?)\n\n", PAGE, re.M | re.S)
    names = {"http://127.0.0.1:8000": url, "MODEL": MODEL, "TOKENIZER": str(folder), "OUT": str(folder)}
    for name, value in names.items():
        assert name in block
        block = block.replace(name, value)
    return shlex.split(block.replace("\\\n", " "))


def run(command: list[str], **variables: str) -> None:
    """Offline: a load test fetches nothing."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(TOOLS))
    if found is None:
        pytest.skip(f"no {name} here: make conformance installs it")
    return found


@pytest.fixture
def folder(tmp_path: Path, vllm: FakeVllm) -> Path:
    """For a tokenizer and results."""
    tokenizer_in(tmp_path)
    return tmp_path


def check_samples(vllm: FakeVllm, answers: int) -> None:
    """Every answer had its four."""
    assert len(vllm.sent("/v1/chat/completions")) >= 4 * answers


def test_vllm_bench_serve(url: str, vllm: FakeVllm, folder: Path) -> None:
    pytest.importorskip("vllm")
    bench, serve, *options = recipe("vllm", url, folder)
    assert (bench, serve) == ("bench", "serve")
    run([sys.executable, "-c", VLLM_BENCH, *options])
    (result,) = folder.glob("openai-chat-*.json")
    assert json.loads(result.read_text())["completed"] == 20
    check_samples(vllm, 20)


def test_guidellm(url: str, vllm: FakeVllm, folder: Path) -> None:
    run([tool("guidellm"), *recipe("guidellm", url, folder)])
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    assert benchmark["metrics"]["request_totals"]["successful"] == 20
    check_samples(vllm, 20)


def test_aiperf(url: str, vllm: FakeVllm, folder: Path) -> None:
    run([tool("aiperf"), *recipe("aiperf", url, folder)], HF_HUB_OFFLINE="")  # with it, a folder is taken for a name
    found = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    assert found["request_count"]["avg"] == 20
    check_samples(vllm, 20)
