"""Every command in the documents is run by a test, or the document says beside it what it needs that no test has."""

import os
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.documents import DOCUMENTS, commands
from tests.test_architecture import ROOT

DOCUMENTED = "tests/commands/test_documented.py"
BENCHMARKS = "tests/benchmarks/test_commands.py"
STACK = "tests/deploy/stack.py"
OTHERS = ("vllm", "guidellm", "aiperf", "docker", "podman", "podman-compose", "kubectl", "promtool", "pip",
          "pre-commit", "cyclonedx-py")  # fmt: skip
"""Programs of others that documents call."""

RUN_BY = {
    **{f"kinetics-serve {name}": DOCUMENTED for name in ("serve", "config", "cost", "capacity", "eval", "calibrate",
       "frontier", "replay", "plan", "tenants", "keys", "usage", "ledger")},
    "kinetics-serve engine": "tests/commands/test_engine.py",
    "kinetics-serve hardware": "tests/commands/test_hardware.py",
    "kinetics-serve demo": "tests/commands/test_demos.py",
    "kinetics-serve calibrate-demo": "tests/commands/test_demos.py",
    "make install": ".ci/run: make test", "make lint": ".ci/run", "make test": ".ci/run", "make wheel": ".ci/run",
    "make deploy-test": ".ci/run",
    "pytest": ".ci/run: make test",
    "mkdocs": "tests/test_site.py",
    "deploy.loadtest": "tests/deploy/test_loadtest.py",
    "locust": "tests/deploy/test_loadtest.py",
    "tests.faults": "tests/faults/test_faults.py",
    "tests.outside_links": "tests/test_outside_links.py",
    "tests.cost.class_defaults": "tests/cost/test_transformers.py",
    "tests.sparse_backend.vllm_sources": "tests/sparse_backend/test_vllm_contract.py",
    **{f"benchmarks.{name}": BENCHMARKS for name in ("attention_speed", "clients", "gateway", "planning",
       "selection_quality", "fleet")},
    "deploy/grafana/draw.py": STACK, "deploy/docker/build": STACK, "deploy/docker/debian-base": STACK,
    "docker compose": STACK,
    "./setup": "tests/deploy/test_compose.py",
    "examples/clients/curl.sh": "tests/test_example_clients.py",
    "promtool": "tests/deploy/test_prometheus.py",
    "kubectl kustomize": "tests/deploy/test_kubernetes.py",
    "vllm bench": "tests/deploy/test_load_tools.py",
    "vllm serve": "tests/sparse_backend/test_engine.py: vllm",
    "guidellm": "tests/deploy/test_load_tools.py",
    "aiperf": "tests/deploy/test_load_tools.py",
    "pip install .": ".ci/wheel: install",
    "pip install": "Makefile: PIP",  # extras, which `make install` takes too
    "pip install ./examples/plugins": "tests/test_examples.py: install",
}  # fmt: skip
"""The test that runs a command, or a file that a test runs and that does."""

NEEDS = {
    "benchmarks/gpu_session.sh": "GPU",
    "deploy/docker/build engine-cuda": "GPU",
    "pip install .[cuda]": "GPU",
    "benchmarks.step_speed": "real engine",
    "benchmarks.cost_model": "real engine",
    "benchmarks.decode_quality": "real engine",
    "benchmarks.task_accuracy": "real engine",
    "benchmarks.its_hub_comparison": "real engine",
    "kubectl apply": "Kubernetes",
    "kubectl create": "Kubernetes",
    "kubectl exec": "Kubernetes",
    "kubectl port-forward": "Kubernetes",
    "podman run": "CycloneDX",
    "cyclonedx-py": "CycloneDX",
    "pip install cyclonedx-bom": "CycloneDX",
    "pre-commit": "pre-commit",
    "pip install pre-commit": "pre-commit",
}
"""What no test runs, and what its document says beside it: that it takes a GPU, a cluster, an engine for minutes;
or whose tool it is."""

NOT_OF_USERS = ("lock", "render-rules", "setup")
"""Scripts of maintainers, whose results are tested, and ./setup, which is called by that."""


def key_of(words: list[str]) -> str:
    """The part of a command line that says what runs: a program, its subcommand, a module or a script."""
    program, arguments = words[0], words[1:]
    if re.search(r"(^|/)python3?$", program) and arguments:
        return arguments[1] if arguments[0] == "-m" else arguments[0]
    line = " ".join(words)
    longest = max((name for name in [*RUN_BY, *NEEDS] if f"{line} ".startswith(f"{name} ")), key=len, default=None)
    if longest is not None:
        return longest
    return " ".join(words[:2]) if program in ("kinetics-serve", "kubectl", "make", "docker", "vllm") else program


def is_command(words: list[str]) -> bool:
    """A mention of a program, without anything after it, is none; nor is a placeholder's."""
    ours = re.match(r"(kinetics-serve|make|(\.venv/bin/)?python3?)$|(deploy|examples|benchmarks)/|\./", words[0])
    return ours is not None or (words[0] in OTHERS and len(words) > 1)


def documented() -> dict[str, set[Path]]:
    """Every command by what it runs, and the documents that it stands in."""
    found: dict[str, set[Path]] = defaultdict(set)
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":  # which tells of them
            continue
        for words in commands(document.read_text()):
            if is_command(words) and not (words[0] in ("kinetics-serve", "make") and len(words) == 1):
                found[key_of(words)].add(document)
    return found


def recipe(target: str) -> list[str]:
    """What a target of the Makefile runs, by what it runs."""
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    started = re.findall(r"^\t\$\(BIN\)/(.*)$", lines.replace("NO_MKDOCS_2_WARNING=1 ", ""), re.M)
    return [key_of(line.split()) for line in started]


def is_covered(key: str) -> bool:
    if key in RUN_BY or key in NEEDS:
        return True
    target = re.match(r"make ([\w-]+)$", key)
    found = recipe(target[1]) if target else []
    return bool(found) and all(map(is_covered, found))


def test_every_command_is_run_by_a_test_or_says_what_it_needs() -> None:
    missing = {key: [str(each) for each in sorted(where)] for key, where in documented().items() if not is_covered(key)}
    assert not missing, "name the test that runs it in RUN_BY; or in NEEDS what a reader is told that it takes"


def test_every_command_of_ours_is_run_whether_a_document_has_it_or_not() -> None:
    """Subcommands, scripts that can be called, and targets of the Makefile."""
    files = [file for folder in ("deploy", "examples", "benchmarks") for file in (ROOT / folder).rglob("*")]
    scripts = [file for file in files if file.is_file() and os.access(file, os.X_OK) and file.name not in NOT_OF_USERS]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    names = [str(file.relative_to(ROOT)) for file in scripts] + [f"make {each}" for each in targets if each != "clean"]
    assert not [name for name in names if not is_covered(name)]


@pytest.mark.parametrize(("key", "where"), RUN_BY.items())
def test_the_test_that_is_named_has_what_it_runs(key: str, where: str) -> None:
    file, _, word = where.partition(": ")
    text = (ROOT / file).read_text()
    if file == DOCUMENTED:  # which reads the documents
        text = "\n".join(" ".join(words) for path in DOCUMENTS for words in commands(path.read_text()))
    last = re.split(r"[ /]|\.(?!py$|sh$)", key)[-1]
    assert re.search(rf"\b{re.escape(word or last)}\b", text)


@pytest.mark.parametrize(("key", "words"), NEEDS.items())
def test_what_no_test_runs_says_what_it_needs_where_it_stands(key: str, words: str) -> None:
    where = documented()[key]
    assert where, "no document has it"
    for document in where:
        sections = re.split(r"^#+ ", document.read_text(), flags=re.M)
        told = [section for section in sections if key in {key_of(line) for line in commands(section)}]
        assert all(words in section for section in told), document
