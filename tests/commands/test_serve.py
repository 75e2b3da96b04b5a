"""What `serve` says while it starts."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinetics_serve.commands.progress import LINE_EVERY_S, StartProgress
from kinetics_serve.engine.embedded.phases import Progress
from tests.fake_vllm import running_fake_vllm
from tests.ledger.server import front_end


def test_a_start_is_a_line_for_each_phase_and_one_every_so_often(capsys: pytest.CaptureFixture[str]) -> None:
    say = StartProgress()
    for phase, seconds in (("importing vLLM", 0), ("importing vLLM", 1), ("loading", 9), ("loading", 10)):
        say(Progress(phase, seconds))
    say(Progress("loading", 9 + LINE_EVERY_S))
    say(Progress("ready", 30))
    assert capsys.readouterr().err.splitlines() == [
        "engine: importing vLLM (0 s)",
        "engine: loading (9 s)",
        "engine: loading (24 s)",
        "engine: ready (30 s)",
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_answers_says_so_once_with_a_request_to_paste(tmp_path: Path, workers: str) -> None:
    with (
        running_fake_vllm(tmp_path) as fake,
        front_end(fake, None, tmp_path, tmp_path / "log", "--workers", workers) as server,
    ):
        while "curl" not in server.log.read_text():
            time.sleep(0.05)
        text = server.log.read_text()
        assert text.count("ready: ") == 1
        (command,) = re.findall(r"^  curl .*?'$", text, re.M | re.S)
        answered = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
        assert '"samples_started"' in answered.stdout


def test_upstreams_are_priced_by_hardware_that_was_stated(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kinetics_serve", "serve", "--upstream", "http://127.0.0.1:1"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=tmp_path, check=False)
    assert refused.returncode == 1
    assert "--hardware" in refused.stderr
