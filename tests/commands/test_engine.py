"""`kinetics-serve engine` becomes the vLLM server that `serve` would start."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kinetics_serve.commands.main import app
from tests.fake_vllm import CONFIG


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of what it becomes."""
    found: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: found.append((list(command), environment)))
    result = CliRunner(env=variables).invoke(app, ["engine", *arguments])
    assert result.exit_code == 0, result.output
    (only,) = found
    return only


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"")
    return str(folder)


def last(command: list[str], option: str) -> str:
    """What holds of an option that is stated twice."""
    return command[len(command) - 1 - command[::-1].index(option) + 1]


def test_it_listens_where_it_is_told(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    command, _ = started(monkeypatch, "--model", model, "--host", "0.0.0.0", "--port", "8001")
    assert last(command, "--host") == "0.0.0.0"
    assert last(command, "--port") == "8001"
    assert last(command, "--model") == model
    assert "--enable-prompt-tokens-details" in command


def test_it_attends_to_the_kv_budget(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    command, _ = started(monkeypatch, "--model", model, KINETICS_KV_BUDGET="512")
    assert '"kv_budget": 512' in last(command, "--additional-config")


def test_what_runs_may_end_after_sigterm(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    command, _ = started(monkeypatch, "--model", model, KINETICS_DRAIN_TIMEOUT="45")
    assert last(command, "--shutdown-timeout") == "45"
    command, _ = started(monkeypatch, "--model", model, "--", "--shutdown-timeout", "7")
    assert last(command, "--shutdown-timeout") == "7"


def test_its_key_is_in_no_process_list(monkeypatch: pytest.MonkeyPatch, model: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    command, environment = started(monkeypatch, "--model", model, KINETICS_UPSTREAM_API_KEY_FILE=str(tmp_path / "key"))
    assert environment["VLLM_API_KEY"] == "secret"
    assert "secret" not in " ".join(command)


def test_it_refuses_to_stand_in_front_of_others() -> None:
    result = CliRunner().invoke(app, ["engine", "--upstream", "http://gpu-1:8001"])
    assert result.exit_code == 1
    assert "drop it" in result.stderr
