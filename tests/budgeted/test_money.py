"""Money beside eFLOPs, where the administrator says what an hour of the hardware costs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from kinetics_serve.api.app import create_app
from kinetics_serve.commands.demos.budgets import TIMES_TABLES, Row, _with_money
from kinetics_serve.commands.main import app
from kinetics_serve.cost import Price
from kinetics_serve.cost.hardware import GPUS
from kinetics_serve.observability.numbers import dollars_for_people
from tests.arms import PAPER_B200
from tests.fake_vllm import MODEL, FakeVllm
from tests.front_ends import listening
from tests.openapi_document import document_of, undescribed
from tests.synthetic import ARCHITECTURE

DOLLARS_PER_HOUR = 3.6
BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 40, "seed": 0}
KINETICS = {"budget": {"samples": 8}}
CONFIG = Path(__file__).parents[1] / "data" / "models" / "Qwen3-8B.json"


@pytest.fixture
def priced(stand_in: FakeVllm) -> Iterator[str]:
    with listening(create_app([stand_in.url], replace(PAPER_B200, dollars_per_hour=DOLLARS_PER_HOUR))) as url:
        yield url


def posted(url: str, route: str, **more: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}{route}", json=BODY | more, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_an_hour_of_full_speed_costs_what_an_hour_costs() -> None:
    for dtype in ("bf16", "fp8"):
        profile = replace(GPUS["h100"], dollars_per_hour=DOLLARS_PER_HOUR)
        architecture = replace(ARCHITECTURE, gemm_dtype=dtype)
        an_hour = 3600 * (profile.fp8 if dtype == "fp8" else profile.flops)  # type: ignore[operator]
        per_eflop = Price.on(architecture, profile).dollars_per_eflop
        assert per_eflop is not None
        assert an_hour * per_eflop == pytest.approx(DOLLARS_PER_HOUR)


def test_a_bill_and_a_plan_state_money_beside_eflops(priced: str) -> None:
    bill = posted(priced, "/v1/chat/completions", kinetics=KINETICS)["kinetics"]
    plan = posted(priced, "/v1/kinetics/plan", kinetics=KINETICS)
    dollars_a_second = DOLLARS_PER_HOUR / 3600
    for found, names in ((bill, ("budget", "spent")), (plan, ("budget", "sample", "minimum"))):
        for name in names:
            dollars = found[f"{name}_dollars"]
            assert dollars == pytest.approx(found[f"{name}_eflops"] / PAPER_B200.flops * dollars_a_second)
            assert found["rounded"][f"{name}_dollars"] == dollars_for_people(dollars)
    assert 0 < bill["spent_dollars"] <= bill["budget_dollars"] == plan["budget_dollars"]
    assert "sample_dollars" in posted(priced, "/v1/kinetics/plan")
    document = document_of(priced)
    assert undescribed(document, "Bill", bill) == undescribed(document, "PlanAnswer", plan) == []


def test_without_the_price_of_an_hour_there_is_no_money(url: str) -> None:
    bill = posted(url, "/v1/chat/completions", kinetics=KINETICS)["kinetics"]
    plan = posted(url, "/v1/kinetics/plan", kinetics=KINETICS)
    assert not [name for found in (bill, plan) for name in [*found, *found["rounded"]] if "dollars" in name]


def test_the_command_plan_states_it_too() -> None:
    words = ["plan", "--model", str(CONFIG), "--hardware", "h100", "--budget", "8samples"]
    plain, priced = (
        json.loads(CliRunner().invoke(app, [*words, *more]).stdout) for more in ([], ["--price-per-gpu-hour", "3.6"])
    )
    assert "budget_dollars" not in plain
    assert priced["budget_dollars"] == pytest.approx(priced["budget_eflops"] / GPUS["h100"].flops / 1000)


def test_the_demos_table_shows_money_where_it_is_in_the_bills() -> None:
    row = Row(TIMES_TABLES, 1)
    bill = {"kv_budget": "dense", "budget_eflops": 20_000_000_000, "spent_eflops": 17_234_356_333}
    bill |= {"memory_bytes": 1.0, "samples_started": 1, "answer": "56"}
    row.add(bill, "56")
    assert _with_money(row) == "17.2 G"
    row = Row(TIMES_TABLES, 1)
    row.add(bill | {"spent_dollars": 0.004}, "56")
    assert _with_money(row) == "$0.004, 17.2 G"
