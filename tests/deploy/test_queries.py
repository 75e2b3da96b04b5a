"""A real Prometheus (Debian has one) reads a real front-end, and every query of dashboards and rules is asked of it."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import free_port
from tests.fake_vllm import FakeVllm, running_fake_vllm
from tests.ledger.server import QUESTION, VOTE, FrontEnd, front_end
from tests.test_architecture import ROOT

DEPLOY = ROOT / "deploy"
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

OF_VLLM = "vllm:"
"""What the stand-in for vLLM doesn't count."""

GRAFANAS = {"$__rate_interval": "10s", "$__range": "30s", "$price": "3"}
"""What Grafana puts into a query: the price is the dashboard's text box."""


@dataclass
class Prometheus:
    url: str

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        return list(answer["data"]["result"])

    def value(self, query: str) -> float:
        """Of a query with one answer."""
        (found,) = self.ask(query)
        return float(found["value"][1])

    def until(self, query: str, expected: float) -> None:
        deadline = time.monotonic() + 60
        while not (found := self.ask(query)) or float(found[0]["value"][1]) != pytest.approx(expected, rel=1e-9):
            assert time.monotonic() < deadline, f"{query}: {found} instead of {expected}"
            time.sleep(0.5)


def running_prometheus(folder: Path, targets: dict[str, str]) -> Iterator[Prometheus]:
    """With our rules, reading every second. targets: HOST:PORT by job."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here (Debian: apt-get install prometheus)")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yml")]
    config["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
    ]
    del config["alerting"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    where = f"127.0.0.1:{free_port()}"
    arguments = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *arguments, f"--web.listen-address={where}"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"http://{where}/-/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield Prometheus(f"http://{where}")
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeVllm]:
    with running_fake_vllm(tmp_path_factory.mktemp("vllm")) as fake:
        yield fake


@pytest.fixture(scope="module")
def server(vllm: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    folder = tmp_path_factory.mktemp("front-end")
    with front_end(vllm, f"sqlite:///{folder}/ledger.db", folder, folder / "log") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: FrontEnd, vllm: FakeVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = {"kinetics-serve": server.url.removeprefix("http://"), "vllm": vllm.url.removeprefix("http://")}
    yield from running_prometheus(tmp_path_factory.mktemp("prometheus"), targets)


@pytest.fixture(scope="module")
def bills(server: FrontEnd, vllm: FakeVllm, prometheus: Prometheus) -> dict[str, int]:
    """eFLOPs by tenant, of questions over some seconds."""
    keys = {name: server.key(name, window_eflops=10**15, month_eflops=10**16) for name in ("acme", "umbrella")}
    spent = dict.fromkeys(keys, 0)
    vllm.word = lambda seed: "yes\n" if seed % 3 else "no\n"
    for number in range(8):
        for tenant, key in keys.items():
            vllm.tokens = 12 if number == 3 else 8
            body = QUESTION | {"seed": number, "kinetics": VOTE, "max_tokens": 50}
            answer = server.ask(key, body)
            assert answer.status_code == 200, answer.text
            spent[tenant] += answer.json()["kinetics"]["spent_eflops"]
        time.sleep(0.7)
    prometheus.until("sum(kinetics_eflops_total)", sum(spent.values()))
    return spent


def queries() -> Iterator[tuple[str, str]]:
    """Every panel's, by its title."""
    for board in BOARDS:
        for panel in json.loads(board.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"]


def filled(query: str) -> str:
    for name, value in GRAFANAS.items():
        query = query.replace(name, value)
    assert "$" not in query, f"{query} asks for a variable that no dashboard has"
    return query


def test_prometheus_counts_what_the_bills_say(prometheus: Prometheus, bills: dict[str, int]) -> None:
    prometheus.until("sum(kinetics_eflops_total)", sum(bills.values()))
    for tenant, eflops in bills.items():
        prometheus.until(f'sum(kinetics_tenant_eflops_total{{tenant="{tenant}"}})', eflops)
        used = prometheus.value(f'kinetics_tenant_quota_used_ratio{{tenant="{tenant}",quota="window"}}')
        assert 0.5 * eflops < used * 10**15 < eflops  # what was spent before the last request


def test_every_panel_has_something_to_show(prometheus: Prometheus, bills: dict[str, int]) -> None:
    asked = [(title, filled(query)) for title, query in queries()]
    assert len(asked) > 25
    deadline = time.monotonic() + 60  # a rate is of two readings, which may be far apart on a busy machine
    while empty := [title for title, query in asked if not prometheus.ask(query) and OF_VLLM not in query]:
        assert time.monotonic() < deadline, empty
        time.sleep(0.5)


def test_panels_ask_for_nothing_that_is_nowhere_exported(prometheus: Prometheus, bills: dict[str, int]) -> None:
    documented = (ROOT / "docs" / "api.md").read_text()
    named = {name for _, query in queries() for name in re.findall(r"\bkinetics_\w+", query)}
    named |= set(re.findall(r"\bkinetics_\w+", (DEPLOY / "prometheus" / "rules.yml").read_text()))
    for name in named:
        assert re.sub(r"_(bucket|sum|count)$", "", name) in documented, name


def test_money_by_tenant_is_the_bill_at_the_price(prometheus: Prometheus, bills: dict[str, int]) -> None:
    (query,) = [query for title, query in queries() if title == "Money by tenant"]
    at_all = re.sub(r"increase\((\w+)\[.*?\]\)", r"\1", query)  # a series' first value is no increase
    for found in prometheus.ask(filled(at_all)):
        assert float(found["value"][1]) == pytest.approx(bills[found["metric"]["tenant"]] / 1e18 * 3)


def test_prometheus_evaluates_every_rule(prometheus: Prometheus, bills: dict[str, int]) -> None:
    deadline = time.monotonic() + 60
    while True:
        groups = httpx.get(f"{prometheus.url}/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in rules) or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert len(rules) > 20
    assert not [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
