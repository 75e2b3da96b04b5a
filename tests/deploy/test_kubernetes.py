"""The Kubernetes manifests: rendered by kubectl, held against Kubernetes' schemas, and what the pod runs, run here."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from kinetics_serve.api.app import create_app
from kinetics_serve.commands.settings.options import Options
from tests.arms import PAPER_B200
from tests.e2e.conftest import free_port
from tests.fake_vllm import FakeVllm
from tests.test_architecture import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu-demo", "existing", "gpu", "ha")
KUBERNETES = "1.33"

OF_OPERATORS = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}
"""Kinds that aren't Kubernetes' own, whose schemas come with their operators."""

Manifest = dict[str, Any]


def folder_with_secrets(tmp_path: Path) -> Path:
    copy = tmp_path / "kubernetes"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([copy / "overlays" / "cpu-demo" / "setup"], check=True)
    return copy


def rendered(overlay: str, tmp_path: Path) -> list[Manifest]:
    return rendered_from(folder_with_secrets(tmp_path), overlay)


def rendered_from(folder: Path, overlay: str) -> list[Manifest]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here (Debian: apt-get install kubernetes-client)")
    command = ["kubectl", "kustomize", str(folder / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def settings(manifests: list[Manifest], name: str) -> dict[str, str]:
    """What the ConfigMap of the workload of that name says."""
    (container,) = dict(pods(manifests))[name]["containers"]
    (source,) = container["envFrom"]
    return dict(of_kind(manifests, "ConfigMap")[source["configMapRef"]["name"]]["data"])


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for kind in ("Deployment", "StatefulSet"):
        for name, workload in of_kind(manifests, kind).items():
            yield name, workload["spec"]["template"]["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_what_kustomize_renders(overlay: str, tmp_path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    manifests = rendered(overlay, tmp_path)
    for manifest in manifests:
        if manifest["kind"] not in OF_OPERATORS:
            validator.validate(manifest, KUBERNETES, strict=True)
    kinds = {each["kind"] for each in manifests}
    assert kinds > {"Deployment", "NetworkPolicy", *OF_OPERATORS}
    assert ("StatefulSet" in kinds) == (overlay != "existing")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_an_option_and_every_reference_leads_somewhere(overlay: str, tmp_path: Path) -> None:
    manifests = rendered(overlay, tmp_path)
    maps = of_kind(manifests, "ConfigMap")
    for name, pod in pods(manifests):
        (container,) = pod["containers"]
        named = [entry["name"] for entry in container.get("env", [])]
        for source in container.get("envFrom", []):
            named += maps[source["configMapRef"]["name"]]["data"]
        for variable in named:
            if variable.startswith("KINETICS_"):
                option = variable.removeprefix("KINETICS_").lower()
                assert option.removesuffix("_file") in Options.model_fields, f"{name}: {variable}"
        claims = of_kind(manifests, "StatefulSet").get(name, {"spec": {}})["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in [*pod["volumes"], *(claim["metadata"] for claim in claims)]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_secret_without_the_administrators_key_is_enough(overlay: str, tmp_path: Path) -> None:
    (container,) = dict(pods(rendered(overlay, tmp_path)))["frontend"]["containers"]
    (variable,) = [each for each in container["env"] if each["name"] == "KINETICS_ADMIN_API_KEY"]
    stated = variable["valueFrom"]["secretKeyRef"]
    assert (stated["key"], stated["optional"]) == ("admin_api_key", True)


def test_what_the_administrators_key_opens_is_not_reached_through_the_gateway(tmp_path: Path) -> None:
    (route,) = of_kind(rendered("ha", tmp_path), "HTTPRoute").values()
    rules = {rule["matches"][0]["path"]["value"]: rule for rule in route["spec"]["rules"]}
    assert set(rules) == {"/v1", "/v1/kinetics/admin"}
    (rewritten,) = rules["/v1/kinetics/admin"]["filters"]
    path = rewritten["urlRewrite"]["path"]["replaceFullPath"]
    assert path not in create_app(["http://127.0.0.1:1"], PAPER_B200).openapi()["paths"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_container_may_do_more_than_it_needs(overlay: str, tmp_path: Path) -> None:
    for name, pod in pods(rendered(overlay, tmp_path)):
        assert pod["securityContext"]["runAsNonRoot"], name
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name
            assert not container["securityContext"]["allowPrivilegeEscalation"], name
            assert "memory" in container["resources"]["limits"], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_waits_for_the_drain_before_it_kills(overlay: str, tmp_path: Path) -> None:
    manifests = rendered(overlay, tmp_path)
    pod = dict(pods(manifests))["frontend"]
    told = float(settings(manifests, "frontend")["KINETICS_DRAIN_TIMEOUT"])
    before = float(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= before + told + 15
    if overlay != "existing":
        told = float(settings(manifests, "engine")["KINETICS_DRAIN_TIMEOUT"])
        assert dict(pods(manifests))["engine"]["terminationGracePeriodSeconds"] >= told + 15


@pytest.mark.parametrize(
    ("workload", "file", "old", "new"),
    [
        ("frontend", "overlays/gpu/kustomization.yaml", "engine-0.engine:8001", "engine-9.engine:8001"),
        ("frontend", "base/kustomization.yaml", "KINETICS_DRAIN_TIMEOUT=45", "KINETICS_DRAIN_TIMEOUT=44"),
        (
            "engine",
            "overlays/gpu/kustomization.yaml",
            "KINETICS_MODEL, value: Qwen/Qwen3-8B",
            "KINETICS_MODEL, value: x",
        ),
    ],
)
def test_a_changed_setting_reaches_the_pods_that_run(
    workload: str, file: str, old: str, new: str, tmp_path: Path
) -> None:
    """Only a changed template makes Kubernetes replace them."""
    folder = folder_with_secrets(tmp_path)
    before = dict(pods(rendered_from(folder, "gpu")))[workload]
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    assert dict(pods(rendered_from(folder, "gpu")))[workload] != before


def test_the_operators_rules_are_those_that_promtool_checks(tmp_path: Path) -> None:
    (rule,) = of_kind(rendered("ha", tmp_path), "PrometheusRule").values()
    source = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    assert rule["spec"] == source, "run deploy/kubernetes/render-rules"


def test_the_pod_runs_as_its_manifest_says(vllm: FakeVllm, tmp_path: Path) -> None:
    manifests = rendered("cpu-demo", tmp_path)
    pod = dict(pods(manifests))["frontend"]
    (container,) = pod["containers"]
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ledger_url").write_text(f"sqlite:///{tmp_path}/ledger.db\n")
    (tmp_path / "secrets" / "engine_api_key").write_text("a key\n")
    secret = {"admin_api_key": "an-administrators-key", "hf_token": "a token"}
    vllm.api_key = "a key"
    port = free_port()
    stated = settings(manifests, "frontend") | {entry["name"]: value_of(entry, secret) for entry in container["env"]}
    stated = {
        name: value.replace("/secrets/", f"{tmp_path}/secrets/").replace("/var/lib/kinetics", str(tmp_path))
        for name, value in stated.items()
    }
    # What only a cluster and the image have.
    elsewhere = {"KINETICS_UPSTREAM": vllm.url, "KINETICS_ARCHITECTURE": str(FOLDER / "overlays/cpu-demo/config.json")}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment |= stated | elsewhere | {"KINETICS_PORT": str(port)}
    command = [sys.executable, "-m", "kinetics_serve", *container["args"]]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        startup = container["startupProbe"]
        deadline = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
            while not answers(f"http://127.0.0.1:{port}{path}"):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, f"{probe}: {(tmp_path / 'log').read_text()}"
                time.sleep(0.1)
        headers = {"authorization": f"Bearer {secret['admin_api_key']}"}
        assert httpx.get(f"http://127.0.0.1:{port}/v1/kinetics/admin/tenants", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(pod["terminationGracePeriodSeconds"]) == 0
    finally:
        process.kill()


def value_of(variable: Manifest, secret: dict[str, str]) -> str:
    """As Kubernetes sets it."""
    return str(variable["value"] if "value" in variable else secret[variable["valueFrom"]["secretKeyRef"]["key"]])


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
