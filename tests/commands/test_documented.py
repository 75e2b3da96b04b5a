"""The `kinetics-serve` commands in the documents' blocks, run as they stand there, page by page.

Engines are stand-ins for vLLM, models their published configs, and ports are free ones. All else is as a reader has it.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from tests.documents import DOCUMENTS, blocks
from tests.e2e.conftest import free_port
from tests.fake_vllm import MODEL, FakeVllm, running_fake_vllm
from tests.test_architecture import ROOT

RUN_ELSEWHERE = {
    r"serve --model|serve .*-- ": "tests/e2e/conftest.py",  # an embedded engine
    r"postgresql://": "tests/ledger/test_front_ends.py",
    r"first_to_k": "tests/test_examples.py",  # what only an installed package has
}
"""Lines that are not run here, and where a server or command is run like that."""

OF_A_LEDGER = ("tenants", "keys", "usage", "ledger")
START_TIMEOUT_S = 180
QUESTIONS = [{"question": f"What is {number} times {42 // number}?", "answer": "42"} for number in (1, 2, 3, 6, 7, 14)]


def is_ours(line: str) -> bool:
    return re.match(r"(KINETICS_\w+=\S+ )*kinetics-serve |export KINETICS_", line) is not None


def lines(document: Path) -> list[str]:
    """Its commands, in the order of the page. One that names no option or subcommand is a mention."""
    found = [line for block in blocks(document.read_text()) for line in block if is_ours(line)]
    return found if any(not line.startswith("export") for line in found) else []


def elsewhere(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in RUN_ELSEWHERE)


PAGES = [document for document in DOCUMENTS if any(not elsewhere(line) for line in lines(document))]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FakeVllm]]:
    """Two, which are right three times of four, and attend sparsely where they are asked to."""
    first, second = (tmp_path_factory.mktemp("engine") for _ in range(2))
    with running_fake_vllm(first) as one, running_fake_vllm(second) as other:
        other.models = ("another",)
        for each in (one, other):
            each.word = lambda seed: "Answer: 7\n" if seed % 4 == 3 else "Answer: 42\n"
            each.kv_budget = 1024
        yield [one, other]


class Reader:
    """Somebody who types a page's commands, in a folder of their own."""

    def __init__(self, engines: list[FakeVllm]) -> None:
        self.variables: dict[str, str] = {}
        self.engine = engines[0].url
        self.server: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.names = {
            r"http://(gpu-1|localhost|127\.0\.0\.1):(8000|8001)": engines[0].url,
            r"http://gpu-2:\d+": engines[1].url,
            r"\bQwen/(Qwen3-[\w.-]+)": rf"{ROOT}/tests/data/models/\1.json",
            r"my_questions_model": f"my_questions_{MODEL}",
            r"keys revoke \d+": "keys revoke 1",
            "KINETICS_PORT=9000": f"KINETICS_PORT={free_port()}",
            "…": "a-secret",
        }

    def types(self, line: str) -> None:
        if "--url" in line:
            line = re.sub(r"--url \S+", f"--url http://127.0.0.1:{self.port}", line)
        for pattern, replacement in self.names.items():
            line = re.sub(pattern, replacement, line)
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            printed = subprocess.run(["bash", "-c", f"printf %s {value}"], capture_output=True, text=True, check=True)
            self.variables[name] = printed.stdout
            return
        words = shlex.split(line, comments=True)
        start = words.index("kinetics-serve")
        variables = dict(word.split("=", 1) for word in words[:start])
        if words[start + 1] == "serve":
            self.serve(words[start + 2 :], variables)
        else:
            self.run(words[start + 1 :], variables)

    def run(self, words: list[str], variables: dict[str, str]) -> None:
        if words[0] in OF_A_LEDGER:
            variables = {"KINETICS_LEDGER": "ledger.db"} | variables
        if ">" in words:
            words = words[: words.index(">")]
        words = [path for word in words for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        result = CliRunner(env=self.variables | variables).invoke(app, words)
        found = result.exit_code == 0 or ("--verify" in words and "measured" in result.output)  # which may be: not so
        assert found, f"{shlex.join(words)}\n{result.output}{result.exception!r}"

    def serve(self, words: list[str], variables: dict[str, str]) -> None:
        """Until the next `serve`, or the end of the page. Where the page names no engine, there is the stand-in."""
        self.leave()
        stated = {"KINETICS_UPSTREAM": self.engine, "KINETICS_HARDWARE": "h100", "KINETICS_PORT": str(free_port())}
        stated |= self.variables | variables
        self.port = int(stated["KINETICS_PORT"])
        command = [sys.executable, "-m", "kinetics_serve", "serve", *words]
        with Path("log").open("w") as log:
            self.server = subprocess.Popen(command, env=os.environ | stated, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready(self.port):
            assert self.server.poll() is None, f"{shlex.join(words)}\n{Path('log').read_text()}"
            assert time.monotonic() < deadline, Path("log").read_text()
            time.sleep(0.05)

    def leave(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(60) == 0, Path("log").read_text()
            self.server = None


def ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def reader(engines: list[FakeVllm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("examples").symlink_to(ROOT / "examples")
    Path("kinetics.yaml").write_text(f"upstream: [{engines[0].url}]\nhardware: h100\n")
    Path("my_questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    typing = Reader(engines)
    yield typing
    if typing.server is not None:
        typing.server.kill()
        typing.server.wait()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pages_commands_work_one_after_another(page: Path, reader: Reader) -> None:
    for line in lines(page):
        if not elsewhere(line):
            reader.types(line)
    reader.leave()


def test_what_is_run_elsewhere_is_in_a_document() -> None:
    every = "\n".join(line for document in DOCUMENTS for line in lines(document))
    for pattern, file in RUN_ELSEWHERE.items():
        assert re.search(pattern, every), pattern
        assert (ROOT / file).is_file()
