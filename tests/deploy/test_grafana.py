"""Grafana's dashboards are what their source says, and what Grafana's schema allows."""

import importlib.util
import json
import sys
from types import ModuleType

import pytest
import yaml

from tests.test_architecture import ROOT

FOLDER = ROOT / "deploy" / "grafana"


def source() -> ModuleType:
    pytest.importorskip("grafana_foundation_sdk", reason="the dashboards' source needs pip install '.[dev]'")
    spec = importlib.util.spec_from_file_location("dashboards", FOLDER / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    sys.modules["dashboards"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_source_makes() -> None:
    dashboards = source()
    for board in dashboards.BOARDS:
        written = json.loads((FOLDER / "dashboards" / f"{board.name}.json").read_text())
        made = json.loads(dashboards.JSONEncoder().encode(dashboards.built(board).build()))
        assert made == written, "run python deploy/grafana/dashboards.py"
    assert len(list((FOLDER / "dashboards").glob("*.json"))) == len(dashboards.BOARDS)


def test_grafanas_own_types_read_them_back_unchanged() -> None:
    source()
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    for file in (FOLDER / "dashboards").glob("*.json"):
        written = json.loads(file.read_text())
        assert json.loads(JSONEncoder().encode(Dashboard.from_json(written))) == written


def test_every_panel_asks_the_data_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "prometheus.yaml").read_text())
    (known,) = provisioned["datasources"]
    for file in (FOLDER / "dashboards").glob("*.json"):
        panels = [panel for panel in json.loads(file.read_text())["panels"] if panel["type"] != "row"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        assert {(panel["datasource"]["uid"], panel["datasource"]["type"]) for panel in panels} == {
            (known["uid"], known["type"])
        }
