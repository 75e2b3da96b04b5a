"""What images are built of."""

import re
import tomllib
from importlib.metadata import version

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import ROOT

DOCKER = ROOT / "deploy" / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_has_all_that_the_front_end_needs_with_hashes() -> None:
    lock = (DOCKER / "frontend.lock").read_text()
    locked = {canonicalize_name(name): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)", lock, re.M)}
    for stated in PROJECT["dependencies"]:
        needed = Requirement(stated)
        name = canonicalize_name(needed.name)
        assert name in locked, f"{name} is missing: run deploy/docker/lock"
        assert needed.specifier.contains(locked[name]), f"{name}: run deploy/docker/lock"
    assert all("--hash=sha256:" in entry for entry in re.split(r"^(?=[\w.-]+==)", lock, flags=re.M)[1:])


def test_no_image_names_a_package_index() -> None:
    for file in [*DOCKER.glob("Dockerfile.*"), DOCKER / "frontend.lock"]:
        assert not re.search(r"index-url|find-links|https?://(?!127\.0\.0\.1)", file.read_text()), file


def test_the_version_stands_in_one_place() -> None:
    """Tags in compose.yaml and the manifests are the project's version, and so is what --version prints."""
    stated = PROJECT["version"]
    tags = []
    for file in [ROOT / "deploy" / "compose" / "compose.yaml", *(ROOT / "deploy" / "kubernetes").rglob("*.yaml")]:
        tags += re.findall(r"kinetics-serve/[\w-]+(?::|, newTag: \")(\d[\w.]*)", file.read_text())
    assert tags
    assert set(tags) == {stated}
    assert version("kinetics-serve") == stated


def test_the_engines_vllm_is_the_one_that_we_build_on() -> None:
    pinned = {Requirement(each).name: Requirement(each) for each in PROJECT["optional-dependencies"]["cuda"]}
    (image,) = re.findall(r"vllm/vllm-openai:v(\S+)", (DOCKER / "Dockerfile.engine").read_text())
    assert pinned["vllm"].specifier.contains(image)


def test_every_service_of_ours_is_read_only_and_without_privileges() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        if name != "postgres":  # whose official image changes its user itself
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
        assert "mem_limit" in service or name == "engine-cuda", name
