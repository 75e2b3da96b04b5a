"""What compose.yaml gives the front-end, read as it reads it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kinetics_serve.commands.settings.options import Options
from kinetics_serve.commands.settings.sources import read
from tests.test_architecture import ROOT

MOUNTED = "/run/secrets/"


@pytest.fixture
def compose(tmp_path: Path) -> Path:
    """The folder, after ./setup."""
    folder = tmp_path / "compose"
    shutil.copytree(ROOT / "deploy" / "compose", folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    subprocess.run([folder / "setup"], check=True, capture_output=True)
    return folder


def options(compose: Path, patch: pytest.MonkeyPatch) -> Options:
    """What holds in the front-end's container."""
    pairs = re.findall(r"^(\w+)=(.*)$", (compose / ".env").read_text(), re.M)
    variables = {name: value.replace(MOUNTED, f"{compose}/secrets/") for name, value in pairs}
    service = yaml.safe_load((compose / "compose.yaml").read_text())["services"]["frontend"]

    def filled(reference: re.Match[str]) -> str:
        return variables.get(reference[1]) or reference[2]

    for name, value in service["environment"].items():
        stated = re.sub(r"\$\{(\w+):-([^}]*)\}", filled, value)
        patch.setenv(name, stated.replace(MOUNTED, f"{compose}/secrets/"))
    patch.chdir(compose / "secrets")  # where no .env is
    return read({}).options


def test_setup_makes_every_secret_and_each_service_mounts_what_it_reads(compose: Path) -> None:
    stack = yaml.safe_load((compose / "compose.yaml").read_text())
    for name, secret in stack["secrets"].items():
        assert (compose / secret["file"]).read_text() or name == "hf_token"
    for name, service in stack["services"].items():
        read_there = re.findall(rf"{MOUNTED}(\w+)", str(service.get("environment", "")))
        assert set(read_there) <= set(service.get("secrets", [])), name


def test_there_is_no_administrator_over_http_unless_env_says_so(compose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert options(compose, monkeypatch).admin_api_key is None
    settings = (compose / ".env").read_text()
    (turned_on,) = re.findall(r"^# (\S+) turns on the page /admin", settings, re.M)
    (compose / ".env").write_text(settings.replace("ADMIN_API_KEY_FILE=", f"ADMIN_API_KEY_FILE={turned_on}"))
    key = options(compose, monkeypatch).admin_api_key
    assert key is not None
    assert key.get_secret_value() == (compose / "secrets" / "admin_api_key").read_text()


def test_the_front_end_can_read_the_administrators_key(compose: Path) -> None:
    services = yaml.safe_load((compose / "compose.yaml").read_text())["services"]
    assert "admin_api_key" in services["frontend"]["secrets"]
    assert not [name for name, service in services.items() if name != "frontend" and "admin_api_key" in str(service)]


@pytest.mark.parametrize("name", ["frontend", "engine-cpu", "engine-cuda"])
def test_compose_waits_for_the_drain_before_it_kills(name: str, compose: Path) -> None:
    service = yaml.safe_load((compose / "compose.yaml").read_text())["services"][name]
    drain = float(service["environment"]["KINETICS_DRAIN_TIMEOUT"])
    assert float(service["stop_grace_period"].removesuffix("s")) >= drain + 15
